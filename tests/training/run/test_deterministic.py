"""`--deterministic` asks torch for kernels of one order in every process, before the first of them runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.training.trainer_kit import Ranks, build, metrics
from training.run import trainer


def _watched() -> None:
    """Have this process say what it asks of torch when it chooses the size of a pass."""
    choose = trainer.choose

    def watched(*given: object) -> object:
        asked = torch.are_deterministic_algorithms_enabled()
        print(f"deterministic {asked} {os.environ.get('CUBLAS_WORKSPACE_CONFIG')}", flush=True)
        return choose(*given)  # type: ignore[arg-type]

    trainer.choose = watched  # type: ignore[assignment]


@pytest.mark.parametrize("more", [[], ["--deterministic"]])
def test_torch_is_asked_before_the_first_pass(tmp_path: Path, more: list[str]) -> None:
    recipe = build(tmp_path, steps=6, samples=(60, 20))
    arguments = [
        "--size", "tiny", "--recipe", str(recipe), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs"),
        "--workers", "0", "--run-name", "run", "--until", "2", *more,
    ]  # fmt: skip
    ranks = Ranks(arguments, 1, tmp_path / "log", prepare=_watched)
    assert ranks.wait() == 0, ranks.output()
    assert f"deterministic {bool(more)} {':4096:8' if more else None}" in ranks.output()
    assert len(metrics(tmp_path / "runs" / "run")) == 2
