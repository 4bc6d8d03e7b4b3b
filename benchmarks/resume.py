"""`python -m benchmarks.resume`: seconds to the first batch after a resume, anywhere in a phase of 2T tokens.

The streams are those of a published recipe at their published sizes: about 1e5 shards of 64 MiB with real indexes. The
shards are links to one real shard, so nothing is left out of the way a run takes: reading the indexes, opening the
streams, arranging the virtual epoch, starting the data workers, reading samples. Each line is a process of its own,
its imports reported apart. "unpacked" shards are what a run that goes on finds; "packed" ones are as the builder writes
them, and each shard that the batches read ahead touch is unpacked first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from benchmarks.common import arguments, show
from benchmarks.synthetic import write_ids

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "r1_phase1.yaml"
DEVICE_BATCH = 16
"""Sequences per device and step, as published for the recipe; here one process reads the phase alone."""
POSITIONS = (0.0, 0.25, 0.5, 0.99)
PACKED_POSITION = 0.5
SHARDS_PER_FOLDER = 64


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="the phase (default: r1_phase1)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of phase and streams over the published one")
    parser.add_argument("--shard-bytes", type=int, default=64 << 20, help="of an unpacked shard (default: 64 MiB)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", metavar="SPEC", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(resume(**json.loads(args.run))))
        return
    rows: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        spec, shards = lay_out(Path(folder), args.recipe, args.scale, args.shard_bytes)
        for state, positions in (("unpacked", POSITIONS), ("packed", (PACKED_POSITION,))):
            if state == "packed":
                _remove_unpacked(Path(folder))
            for position in positions:
                step = int(position * spec["total_steps"])
                command = [sys.executable, "-m", "benchmarks.resume", "--run"]
                given = json.dumps({**spec, "step": step, "workers": args.workers})
                out = subprocess.run([*command, given], check=True, stdout=subprocess.PIPE).stdout
                took = json.loads(out.splitlines()[-1])
                total = took["open"] + took["load"] + took["batch"]
                ratio = total / (rows[0][6] if rows else total)
                parts = (took["imports"], took["open"], took["load"], took["batch"])
                rows.append((f"{position:.0%}, {state}", step, *parts, total, ratio, took["gb"]))
    tokens = spec["total_steps"] * DEVICE_BATCH * spec["seq_len"]
    show(
        f"First batch of {DEVICE_BATCH} x {spec['seq_len']} after a resume: {tokens:.3g} tokens, {shards:,} shards of "
        f"{len(spec['weights'])} sources, {args.workers} workers",
        ("position", "step", "imports, s", "open, s", "load, s", "batch, s", "last three, s", "x first", "GB"),
        rows,
        args.out,
    )


def lay_out(folder: Path, recipe_path: Path, scale: float, shard_bytes: int) -> tuple[dict[str, Any], int]:
    """Write the recipe's streams below `folder`; returns what `resume` needs but step and workers, and the shards."""
    from corpus.recipe.model import load_recipe
    from training.data.simulation import source_samples

    recipe = load_recipe(recipe_path)
    real = _real_shard(folder / "real", recipe.seq_len, shard_bytes)
    total = 0
    for name, samples in source_samples(recipe)[0].items():
        count = max(1, round(samples * scale / real["samples"]))
        _write_stream(folder / name, folder / "real", real, count)
        total += count
    spec = {
        "folder": str(folder),
        "weights": {name: entry.weight for name, entry in recipe.mixture.items()},
        "seq_len": recipe.seq_len,
        "seed": recipe.seed,
        "total_steps": max(100, round(recipe.tokens * scale / (DEVICE_BATCH * recipe.seq_len))),
        "virtual_epoch_samples": recipe.training.virtual_epoch_samples,
    }
    return spec, total


def _real_shard(folder: Path, seq_len: int, size: int) -> dict[str, Any]:
    """One full shard of random ids below `folder`, packed and unpacked; returns its entry of the index."""
    samples = max(1, size // (4 * (seq_len + 2)))
    write_ids(folder, samples, seq_len, 128_256, 0, shard_bytes=2 * size)
    (entry,) = json.loads((folder / "index.json").read_text())["shards"]
    packed = (folder / entry["zip_data"]["basename"]).read_bytes()
    (folder / entry["raw_data"]["basename"]).write_bytes(zstandard.decompress(packed))
    return entry


def _write_stream(stream: Path, real: Path, entry: dict[str, Any], shards: int) -> None:
    parts = {key: (entry[key], real / entry[key]["basename"]) for key in ("raw_data", "zip_data")}
    entries = []
    for number in range(shards):
        unit = f"units/{number // SHARDS_PER_FOLDER:06}"
        if number % SHARDS_PER_FOLDER == 0:
            (stream / unit).mkdir(parents=True)
        described = dict(entry)
        for key, (part, file) in parts.items():
            basename = f"{unit}/shard.{number % SHARDS_PER_FOLDER:05}.mds" + file.name.partition(".mds")[2]
            (stream / basename).symlink_to(file)
            described[key] = {**part, "basename": basename}
        entries.append(described)
    (stream / "index.json").write_text(json.dumps({"version": 2, "shards": entries}))


def _remove_unpacked(folder: Path) -> None:
    for path in folder.glob("*/units/*/*.mds"):
        path.unlink()


def resume(
    folder: str,
    weights: dict[str, float],
    seq_len: int,
    seed: int,
    total_steps: int,
    virtual_epoch_samples: int,
    step: int,
    workers: int,
) -> dict[str, float]:
    """Go to `step` of the phase over the streams below `folder`; seconds of each part, and peak memory in GB.

    Call in a fresh process, so that imports and memory are its own.
    """
    marks = [time.perf_counter()]
    from training.base.memory import peak_memory
    from training.data.loader import MixtureDataset, MixtureSource, build_loader

    marks.append(time.perf_counter())
    loader = build_loader(
        [MixtureSource(name, Path(folder, name), None, weight) for name, weight in weights.items()],
        seq_len=seq_len,
        seed=seed,
        global_batch=DEVICE_BATCH,
        canonical_nodes=1,
        total_steps=total_steps,
        virtual_epoch_samples=virtual_epoch_samples,
        num_workers=workers,
    )
    marks.append(time.perf_counter())
    dataset = loader.dataset
    assert isinstance(dataset, MixtureDataset)
    saved = json.dumps(dataset.state_dict(step * DEVICE_BATCH, from_beginning=True))
    dataset.load_state_dict(json.loads(saved))
    marks.append(time.perf_counter())
    batches = iter(loader)
    batch = next(batches)
    marks.append(time.perf_counter())
    assert batch["input_ids"].shape == (DEVICE_BATCH, seq_len)
    peak = peak_memory()
    batches.close()  # type: ignore[attr-defined]
    dataset.close()
    seconds = dict(zip(("imports", "open", "load", "batch"), np.diff(marks).tolist(), strict=True))
    return {**seconds, "gb": peak / 1e9}


if __name__ == "__main__":
    main()
