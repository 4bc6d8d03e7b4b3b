"""Running a benchmark whole, as its command does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Rows = Callable[[ModuleType, str], list[dict[str, Any]]]


@pytest.fixture
def rows_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Runs a benchmark with the given arguments and returns its table; the machine is described beside it."""

    def run(module: ModuleType, arguments: str) -> list[dict[str, Any]]:
        out = tmp_path / "figures.json"
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments.split(), "--out", str(out)])
        module.main()
        figures = json.loads(out.read_bytes())
        assert {"processor", "cores", "versions"} <= set(figures["machine"])
        rows: list[dict[str, Any]] = figures["rows"]
        return rows

    return run
