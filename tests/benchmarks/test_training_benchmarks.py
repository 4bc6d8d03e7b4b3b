"""The benchmarks of loader, resume and training steps run whole on very little, and their tables hold real figures."""

from __future__ import annotations

import pytest

from benchmarks import loader, resume, saving, train_step
from tests.benchmarks.conftest import Rows


def test_loaders_are_measured_side_by_side(rows_of: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "DEVICE_RATE", 2_000_000)
    rows = rows_of(loader, "--samples 400 --batches 20 --paced-batches 5")
    assert [row["loader"].split(",")[0] for row in rows] == ["ours", "stock StreamingDataset", "memory map"]
    assert all(row["M tokens/s"] > 0 and 0 <= row["wait %"] < 100 for row in rows)


def test_resumes_are_measured_with_shards_unpacked_and_packed(rows_of: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "POSITIONS", (0.5,))
    rows = rows_of(resume, "--scale 1e-6 --shard-bytes 65536")
    assert [row["position"] for row in rows] == ["50%, unpacked", "50%, packed"]
    assert all(row["step"] == rows[0]["step"] > 0 and row["batch, s"] > 0 for row in rows)


def test_the_real_trainer_is_measured(rows_of: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = train_step._ways
    monkeypatch.setattr(train_step, "_ways", lambda *given: ways(*given)[-1:])  # each costs ten seconds of imports
    small = "--size 140m --seq-len 16 --batch 2 --steps 3 --workers 1 --kd"
    (row,) = rows_of(train_step, small)
    assert row["size, sequence: way"] == "140m-scaled 16: trainer, cached teacher"
    assert row["tokens/s"] > 0 and row["MFU %"] > 0 and 0 <= row["data wait %"] < 100


def test_saves_are_measured_in_the_background_and_waited_for(rows_of: Rows) -> None:
    rows = rows_of(saving, "--size 140m --scaled-down --seq-len 16 --saves 2")
    assert [row["saves"] for row in rows] == list(saving.WAYS)
    assert all(0 < row["step, s"] and 0 < row["step with a save, s"] and row["GB"] > 0 for row in rows)


@pytest.mark.parametrize("size", ["950m", "pro"])
def test_every_way_of_the_model_alone_does_the_same_steps(size: str) -> None:
    ways = [
        train_step.Way("", size, seq_len=16, batch=2, steps=3, kind="model", chunked=chunked)
        for chunked in (False, True)
    ]
    plain, chunked = (train_step.model_alone(way) for way in ways)
    assert plain.loss == pytest.approx(chunked.loss, rel=1e-5) and plain.tokens_per_s > 0
