"""`python -m benchmarks.arrange`: time and memory to arrange an epoch, against the size of the phase.

ours: one virtual epoch of at most 2^20 samples. stock: the whole phase at once, as StreamingDataset does when a phase
is one epoch. Each line is a process of its own, so that peak memory is its own; sizes stock cannot hold are skipped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np

from benchmarks.common import arguments, show

WEIGHTS = (0.55, 0.23, 0.08, 0.03, 0.03, 0.03, 0.02, 0.01, 0.01, 0.01)
SHARD_SAMPLES = 8192
STOCK_LIMIT = 100_000_000


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e6, 1e7, 1e8, 1e9], help="samples of the phase")
    parser.add_argument("--run", nargs=2, metavar=("WAY", "SAMPLES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        import streaming  # noqa: F401  # seconds and half a gigabyte that are not the arrangement's

        from training.base.memory import peak_memory

        way, samples = args.run[0], int(args.run[1])
        before = peak_memory()
        started = time.perf_counter()
        (ours if way == "ours" else stock)(samples)
        seconds = time.perf_counter() - started
        peak = peak_memory()
        print(json.dumps([seconds, (peak - before) / 1e9]))
        return
    rows = []
    for size in args.sizes:
        measured = {}
        for way in ("ours", "stock"):
            if way == "stock" and size > STOCK_LIMIT:
                continue
            command = [sys.executable, "-m", "benchmarks.arrange", "--run", way, str(int(size))]
            measured[way] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            ratio = measured[way][0] / measured["ours"][0]
            rows.append((f"{size:.0e}", way, *measured[way], ratio))
    show("Arranging an epoch", ("samples", "way", "seconds", "GB above start", "x ours"), rows, args.out)


def _shards(samples: int) -> list[np.ndarray]:
    """Shard sizes of ten sources that together hold as many samples as the phase draws."""
    return [
        np.full(max(1, int(samples * weight) // SHARD_SAMPLES), min(SHARD_SAMPLES, samples), np.int64)
        for weight in WEIGHTS
    ]


def ours(samples: int) -> None:
    """Plan the phase and arrange one virtual epoch in its middle, shuffled."""
    from streaming.base.partition import get_partitions
    from streaming.base.shuffle import get_shuffle

    from training.data.mixture import Cycle, arrange_epoch, plan_epochs

    batch = 2048
    plan = plan_epochs(WEIGHTS, samples // batch, batch, 1 << 20)
    cycles = [Cycle(str(index), sizes, 17) for index, sizes in enumerate(_shards(samples))]
    epoch = plan.epochs // 2
    units, ids = arrange_epoch(plan, cycles, epoch)
    parts = get_partitions("relaxed", len(ids), 16, 16, 8, 2, batch // 128, 0, 16)
    shuffled = get_shuffle("py1br", units, 16, 17, epoch, 1 << 18)
    assert len(ids[shuffled[parts[parts >= 0]]]) == plan.samples(epoch)


def stock(samples: int) -> None:
    """What StreamingDataset computes for the phase as one epoch: resampling, partition, shuffle."""
    from streaming.base.partition import get_partitions
    from streaming.base.sampling import get_sampling
    from streaming.base.shuffle import get_shuffle

    batch = 2048
    units, ids = [], []
    offset = 0
    rng = np.random.default_rng(17)
    for sizes, weight in zip(_shards(samples), WEIGHTS, strict=True):
        chosen = get_sampling(sizes, int(samples * weight), 1, 17, 0, True)
        starts = offset + np.cumsum(sizes) - sizes
        for start, size, take in zip(starts, sizes, chosen, strict=True):
            whole, rest = divmod(int(take), int(size))
            units += [int(size)] * whole + ([rest] if rest else [])
            ids += [start + np.arange(size)] * whole
            if rest:
                ids.append(start + np.sort(rng.choice(int(size), rest, False)))
        offset += int(sizes.sum())
    small = np.concatenate(ids)
    parts = get_partitions("relaxed", len(small), 16, 16, 8, 2, batch // 128, 0, 16)
    shuffled = get_shuffle("py1br", np.array(units), 16, 17, 0, 1 << 18)
    np.where(parts != -1, small[shuffled[np.where(parts != -1, parts, 0)]], -1)


if __name__ == "__main__":
    main()
