"""`python -m benchmarks.loader`: our mixture loader, stock StreamingDataset and a plain memory map over the same ids.

All three hand out int64 batches of (device_batch, seq_len) inputs and labels from a warm local cache; rates are target
tokens per wall second over the same number of batches, after the first one. "wait" is the share of the time that a
device of 90,000 tokens/s (the aim for 950m on one H200) would spend waiting for its next batch: a batch is asked for at
that pace, with the processor otherwise idle, as it is while a device computes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import arguments, show
from benchmarks.synthetic import write_ids

SEQ_LEN, DEVICE_BATCH = 2048, 16
DEVICE_RATE = 90_000
"""Tokens per second of the device that waits."""
PACED_AFTER = 10
"""Batches at that pace before the clock starts: those that were read ahead meanwhile."""


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=24_000, help="samples of 2048 + 1 ids over two sources")
    parser.add_argument("--batches", type=int, default=1_000)
    parser.add_argument("--paced-batches", type=int, default=40, help="batches asked for at a device's pace")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = [_write(work / name, args.samples // 2, seed) for seed, name in enumerate(("a", "b"))]
        rows = []
        for name, fresh in (
            ("ours", _ours(sources, args)),
            ("stock StreamingDataset", _stock(sources, args)),
            ("memory map, one process", _memory_map(work, args)),
        ):
            rate, first = _rate(fresh(), args.batches)
            wait = _wait(fresh(), args.paced_batches)
            rows.append((name, rate / 1e6, first, rate / DEVICE_RATE, 100 * wait))
        fastest = rows[0][1]
        show(
            f"Loading {args.batches} batches of {DEVICE_BATCH} x {SEQ_LEN}, {args.workers} workers, warm local cache",
            ("loader", "M tokens/s", "first batch, s", f"x {DEVICE_RATE:,}/s", "wait %", "x ours"),
            [(*row, row[1] / fastest) for row in rows],
            args.out,
        )


def _write(folder: Path, samples: int, seed: int) -> Path:
    write_ids(folder, samples, SEQ_LEN, 128_256, seed)
    return folder


def _ours(sources: list[Path], args: argparse.Namespace) -> Callable[[], Iterable[Any]]:
    from training.data.dataset import MixtureSource
    from training.data.loader import build_loader

    def fresh() -> Iterable[Any]:
        return build_loader(
            [MixtureSource(path.name, path, None, weight) for path, weight in zip(sources, (0.7, 0.3), strict=True)],
            seq_len=SEQ_LEN,
            seed=17,
            global_batch=DEVICE_BATCH,
            canonical_nodes=1,
            total_steps=args.batches + 50,
            virtual_epoch_samples=1 << 20,
            num_workers=args.workers,
        )

    for _ in fresh():
        pass
    return fresh


def _stock(sources: list[Path], args: argparse.Namespace) -> Callable[[], Iterable[Any]]:
    import torch
    from streaming import Stream, StreamingDataset

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.from_numpy(np.stack([row["ids"] for row in rows]).astype(np.int64))
        return {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}

    shares = list(zip(sources, (0.7, 0.3), strict=True))

    def fresh() -> Iterable[Any]:
        dataset = StreamingDataset(
            streams=[Stream(local=str(path), proportion=share) for path, share in shares],
            epoch_size=(args.batches + 50) * DEVICE_BATCH,
            shuffle=True,
            num_canonical_nodes=1,
            batch_size=DEVICE_BATCH,
        )
        return torch.utils.data.DataLoader(dataset, DEVICE_BATCH, num_workers=args.workers, collate_fn=collate)

    return fresh


def _memory_map(work: Path, args: argparse.Namespace) -> Callable[[], Iterable[Any]]:
    import torch

    path = work / "flat.npy"
    rows = np.random.default_rng(2).integers(0, 128_256, (args.samples, SEQ_LEN + 1)).astype(np.uint32)
    np.save(path, rows)
    mapped = np.load(path, mmap_mode="r")
    order = np.random.default_rng(3).permutation(args.samples)

    def fresh() -> Iterable[Any]:
        for start in range(0, (args.batches + 50) * DEVICE_BATCH, DEVICE_BATCH):
            picked = np.sort(order[np.arange(start, start + DEVICE_BATCH) % args.samples])
            ids = torch.from_numpy(mapped[picked].astype(np.int64))
            yield {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}

    return fresh


def _rate(loader: Iterable[Any], batches: int) -> tuple[float, float]:
    """(tokens per second after the first batch, seconds to the first batch)."""
    started = time.perf_counter()
    rows = iter(loader)
    next(rows)
    first = time.perf_counter() - started
    begun = time.perf_counter()
    seen = 0
    for _ in rows:
        seen += 1
        if seen == batches - 1:
            break
    return seen * DEVICE_BATCH * SEQ_LEN / (time.perf_counter() - begun), first


def _wait(loader: Iterable[Any], batches: int) -> float:
    """Share of the time that a device at DEVICE_RATE waits for its batches."""
    step = DEVICE_BATCH * SEQ_LEN / DEVICE_RATE
    rows = iter(loader)
    waited = 0.0
    for count in range(PACED_AFTER + batches):
        begun = time.perf_counter()
        next(rows)
        if count >= PACED_AFTER:
            waited += time.perf_counter() - begun
        time.sleep(step)
    return waited / (waited + batches * step)


if __name__ == "__main__":
    main()
