from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpus.acquire import AcquireConfig, transfer
from corpus.acquire.origins import Origin
from corpus.catalogue.models import Source
from corpus.documents.adapters import FieldAdapter
from tests.loopback_hub import LoopbackHub

MakeSource = Callable[..., Source]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    with LoopbackHub(tmp_path / "hub") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def config(tmp_path: Path) -> AcquireConfig:
    return AcquireConfig(cache=tmp_path / "cache", base_dir=tmp_path)


@pytest.fixture
def make_source() -> MakeSource:
    def make(origin: Origin, title: str = "Toy", gate: str | None = None) -> Source:
        return Source(title=title, origin=origin, adapter=FieldAdapter(), licence="CC0-1.0", gate=gate)

    return make
