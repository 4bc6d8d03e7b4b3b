"""The simulation runs the loader's own code on streams that exist as indexes only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import recipe_dict, run_command, user_error

SHARD_SAMPLES = (64 << 20) // (33 * 4)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two sources, 1.2M and 0.4M samples drawn in 400 steps; a has three shards published, b nothing."""

    def source(published: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "title": "t",
            "origin": {"kind": "files", "paths": ["x.jsonl"]},
            "adapter": {"shape": "field", "field": "text"},
            "licence": "CC0-1.0",
            "published": published,
        }

    changes = {
        "tokens": 32 * 4000 * 400,
        "sources": {
            "a": source([{"tokens": 33 * 3 * SHARD_SAMPLES, "table": "upstream", "reference": "a test"}]),
            "b": source([]),
        },
        "training": {
            "global_batch": 4000,
            "canonical_nodes": 2,
            "virtual_epoch_samples": 400_000,
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "linear", "warmup_steps": 2, "final_fraction": 0.1},
        },
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe_dict({"a": [], "b": []}, {"a": 3.0, "b": 1.0}) | changes), encoding="utf-8")
    return path


def test_figures_follow_from_the_arrangement(recipe: Path) -> None:
    result = run_command(
        "-m", "training.simulate", str(recipe), "--nodes", "2", "--gpus", "2", "--tokens-per-second", "1000", "--json"
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["steps"] == 400 and figures["virtual_epochs"] == 4 and figures["steps_per_virtual_epoch"] == 100
    assert figures["shards"] == 3 + 1 and figures["assumed_sizes"] == ["b"]
    assert figures["hours"] == pytest.approx(32 * 4000 * 400 / 4000 / 3600)
    assert figures["resume_step"] == 240
    # A node reads one to three of the four shards in an epoch, and has them all before its first batch.
    shard = SHARD_SAMPLES * 33 * 4
    assert shard * 0.8 <= figures["cache_bytes"] <= 3 * shard
    assert 0 < figures["resume_fetch_bytes"] <= figures["cache_bytes"] * 0.4 + 4
    epoch_hours = 400_000 * 32 / 4000 / 3600
    assert 0 <= figures["fetch_bytes_per_hour"] <= 3 * shard * 0.4 / epoch_hours
    assert 0 < figures["arrange_seconds"] and figures["peak_bytes"] < 2 << 30


def test_report_for_people(recipe: Path) -> None:
    result = run_command("-m", "training.simulate", str(recipe), "--nodes", "2", "--gpus", "4", "--cache", "10mb")
    assert result.returncode == 0, result.stderr
    assert "small on 2 nodes x 4 GPUs" in result.stdout and "resuming at step 240" in result.stdout
    assert "no published size, taken to be seen once: b" in result.stdout
    assert "a cache of 10 MB is too small" in result.stdout
    assert "1, 2, 4, 8, 16, 20, 32, 40" in result.stdout


def test_a_world_that_cannot_run_it_is_refused(recipe: Path) -> None:
    error = user_error(run_command("-m", "training.simulate", str(recipe), "--nodes", "3"))
    assert "24 processes (3 x 8) cannot share a global batch of 4000" in error
