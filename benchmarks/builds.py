"""What the build benchmarks share: inputs on disk, a recipe over them, one timed command."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import arguments

SEQ_LEN = 2048
TOKENIZER: dict[str, Any] = {"kind": "llama-models", "name": "llama3"}


def build_arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark of builds."""
    parser = arguments(description)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, help="scratch folder (default: a temporary one)")
    return parser


def write_jsonl(path: Path, texts: Iterable[str]) -> None:
    """One record {"text": ...} per line."""
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def write_recipe(path: Path, files: Sequence[Path], cleaning: Sequence[dict[str, Any]] = ()) -> Path:
    """A recipe with one source over local files and the given cleaning steps."""
    recipe = {
        "name": path.stem.replace("-", "_"),
        "family": "bench",
        "phase": "bench",
        "summary": "benchmark",
        "tokenizer": TOKENIZER,
        "seq_len": SEQ_LEN,
        "boundary": "bos",
        "tokens": SEQ_LEN * 8,
        "cleaning": list(cleaning),
        "mixture": {"code": {"source": "code", "weight": 1.0}},
        "sources": {
            "code": {
                "title": "code",
                "origin": {"kind": "files", "paths": [str(file) for file in files]},
                "format": "parquet" if files[0].suffix == ".parquet" else "jsonl",
                "adapter": {"shape": "field", "field": "text"},
                "licence": "PSF-2.0",
            }
        },
        "training": {
            "global_batch": 8,
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "linear", "warmup_steps": 0, "final_fraction": 0.1},
        },
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def build_command(recipe: Path, data: Path, *more: str) -> list[str]:
    """The command a user types."""
    return [sys.executable, "-m", "corpus.build", str(recipe), "--out", str(data), *more]


def make_tokenizer(recipe: Path, data: Path) -> Path:
    """Convert the recipe's tokenizer, once per data folder: that is set-up, not building. Returns its file."""
    subprocess.run(build_command(recipe, data, "--dry-run"), check=True, capture_output=True)
    return next((data / "tokenizers").glob("*/tokenizer.json"))


def timed(command: Sequence[str]) -> tuple[float, float]:
    """(wall seconds, CPU seconds of the process and its children) of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wall = time.perf_counter() - started
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
