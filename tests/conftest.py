"""Shared by all tests: small recipes on disk, and running the commands users type."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent

# One thread per process: tests start several processes on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# Speed is not judged: neither an example of a property test nor making it has a time limit.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")

WORDS = "the quick brown fox jumps over a lazy dog while éclair 数学 def return x1 == 42; naïve — “quoted”\n\t".split(
    " "
)


@pytest.fixture(scope="session", autouse=True)
def cache_of_commands(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Training commands unpack their shards below the tests' own folder."""
    os.environ["CORPUS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def environment(**extra: str) -> dict[str, str]:
    """Environment for a command run from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **extra}


def run_command(
    *args: str, cwd: Path = ROOT, timeout: float = PATIENCE, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGS`, capturing its output."""
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment(**extra), capture_output=True, text=True, timeout=timeout
    )


def user_error(result: subprocess.CompletedProcess[str]) -> str:
    """The one-line error of a command that must have failed as a user's mistake does."""
    assert result.returncode == 2, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def documents(count: int, seed: int = 0, words: int = 60) -> list[dict[str, Any]]:
    """Deterministic small documents with ids, of 1 to ``words`` words."""
    rng = random.Random(seed)
    return [{"id": f"d{seed}-{n}", "text": " ".join(rng.choices(WORDS, k=rng.randint(1, words)))} for n in range(count)]


def write_jsonl(path: Path, records: Iterable[Any]) -> Path:
    """Write records, one JSON value per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def recipe_dict(
    sources: dict[str, list[str]], weights: dict[str, float] | None = None, **changes: Any
) -> dict[str, Any]:
    """A small recipe over local JSON lines files."""
    recipe: dict[str, Any] = {
        "name": "small",
        "family": "sample",
        "phase": "phase1",
        "summary": "a test",
        "tokenizer": {"kind": "train", "vocab_size": 600},
        "seq_len": 32,
        "boundary": "bos",
        "tokens": 32 * 4 * 20,
        "unit_bytes": 4096,
        "mixture": {name: {"source": name, "weight": (weights or {}).get(name, 1.0)} for name in sources},
        "sources": {
            name: {
                "title": name,
                "origin": {"kind": "files", "paths": paths},
                "adapter": {"shape": "field", "field": "text"},
                "licence": "CC0-1.0",
                "redistributable": True,
            }
            for name, paths in sources.items()
        },
        "training": {
            "global_batch": 4,
            "virtual_epoch_samples": 40,
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "linear", "warmup_steps": 2, "final_fraction": 0.1},
        },
    }
    recipe.update(changes)
    return recipe


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe with two generated sources (a: 300 documents, b: 60) into tmp_path; keyword changes apply."""

    def make(**changes: Any) -> Path:
        write_jsonl(tmp_path / "a.jsonl", documents(300, seed=1))
        write_jsonl(tmp_path / "b.jsonl", documents(60, seed=2))
        recipe = recipe_dict({"a": ["a.jsonl"], "b": ["b.jsonl"]}, {"a": 3.0, "b": 1.0}, **changes)
        path = tmp_path / f"{recipe['name']}.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    return make
