"""The build benchmark runs whole on a little text, and its table says what was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import build, build_workers, builds, scale_dedup
from tests.benchmarks.conftest import Rows


@pytest.fixture(autouse=True)
def _small_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "TOKENIZER", {"kind": "train", "vocab_size": 2048, "max_bytes_per_source": 1 << 17})


def test_the_build_benchmark_runs_every_way(rows_of: Rows, tmp_path: Path) -> None:
    rows = rows_of(build, f"--megabytes 1 --slow-megabytes 1 --workers 2 --work {tmp_path}")
    ways = [row["way"].split(",")[0] for row in rows]
    assert ways == ["ours", "ours", "bare loop", "tokenizers + MDSWriter", "datatrove pipeline"]
    assert all(row["MB/s"] > 0 for row in rows)


def test_the_workers_benchmark_takes_turns(rows_of: Rows, tmp_path: Path) -> None:
    pair, median = rows_of(build_workers, f"--megabytes 1 --pairs 1 --workers 2 --work {tmp_path}")
    assert pair["ratio"] == pair["1 worker, s"] / pair["2 workers, s"] == median["ratio"]


def test_the_benchmark_of_comparisons_does_every_stage(rows_of: Rows, tmp_path: Path) -> None:
    rows = rows_of(scale_dedup, f"--units 4 8 --documents 8 --work {tmp_path}")
    assert [row["comparison"] for row in rows] == [
        "exact_dedup, 4 units", "exact_dedup, 8 units", "minhash, 4 units", "minhash, 8 units"
    ]  # fmt: skip
    assert all(row["jobs"] >= 3 and row["documents"] in (32, 64) for row in rows)
