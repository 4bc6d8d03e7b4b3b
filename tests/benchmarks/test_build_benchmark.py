"""The build benchmark runs whole on a little text, and its table says what was run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import build, build_workers, builds


def test_the_build_benchmark_runs_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "TOKENIZER", {"kind": "train", "vocab_size": 2048, "max_bytes_per_source": 1 << 17})
    out = tmp_path / "figures.json"
    sizes = ["--megabytes", "1", "--slow-megabytes", "1", "--workers", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.build", *sizes, "--work", str(tmp_path), "--out", str(out)])
    build.main()
    figures = json.loads(out.read_bytes())
    ways = [row["way"].split(",")[0] for row in figures["rows"]]
    assert ways == ["ours", "ours", "bare loop", "tokenizers + MDSWriter", "datatrove pipeline"]
    assert all(row["MB/s"] > 0 for row in figures["rows"])
    assert {"processor", "cores", "versions"} <= set(figures["machine"])


def test_the_workers_benchmark_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "TOKENIZER", {"kind": "train", "vocab_size": 2048, "max_bytes_per_source": 1 << 17})
    out = tmp_path / "figures.json"
    sizes = ["--megabytes", "1", "--pairs", "1", "--workers", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.build_workers", *sizes, "--work", str(tmp_path), "--out", str(out)])
    build_workers.main()
    pair, median = json.loads(out.read_bytes())["rows"]
    assert pair["ratio"] == pair["1 worker, s"] / pair["2 workers, s"] == median["ratio"]
