"""`python -m benchmarks.scale_dedup`: what a comparison costs after its look at the documents, as units grow in number.

Small units of made-up keys, a tenth of them equal to an earlier one, and jobs of little memory, so that there are many
jobs of every stage. One process does them one after the other; its largest resident memory is that of any job.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import arguments, show
from corpus.base.files import read_json
from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.comparisons.keys import write_keys
from corpus.cleaning.comparisons.stages import DONE, Comparison
from corpus.cleaning.comparisons.steps import ExactDedupStep, MinhashStep
from corpus.cleaning.step import ComparisonStep

FOUND = "found.json"


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--documents", type=int, default=64, help="of a unit")
    parser.add_argument("--job-megabytes", type=int, default=16, help="memory a job may hold, about")
    parser.add_argument("--work", type=Path, help="folder for the files (default: a temporary one)")
    args = parser.parse_args()
    rows: list[tuple[str, int, int, int, float, float, float, float, int]] = []
    for step in (ExactDedupStep(), MinhashStep()):
        first = 0.0
        for count in args.units:
            with tempfile.TemporaryDirectory(dir=args.work) as folder:
                job = (Path(folder), step, count, args.documents, args.job_megabytes << 20)
                process = multiprocessing.get_context("spawn").Process(target=_compare, args=job)
                process.start()
                process.join()
                found = read_json(Path(folder) / FOUND)
            each = found["cpu"] / count
            first = first or each
            rows.append((
                f"{step.step}, {count:,} units", count * args.documents, found["dropped"], found["jobs"],
                found["seconds"], found["cpu"], each * 1e3, each / first, found["megabytes"],
            ))  # fmt: skip
    columns = (
        "comparison",
        "documents",
        "dropped",
        "jobs",
        "seconds",
        "CPU s",
        "CPU ms a unit",
        "x first",
        "MB of a job",
    )
    show("What a comparison costs after its look at the documents", columns, rows, args.out)


def _compare(folder: Path, step: ComparisonStep, count: int, documents: int, memory: int) -> None:
    chance = np.random.default_rng(1)
    units = [UnitRef("s", number) for number in range(count)]
    for ref in units:
        write_keys(folder, ref, enumerate(_keys(chance, step.bands, documents, count)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu, jobs = time.perf_counter(), time.process_time(), 0
    while stage := Comparison(folder, units, step.bands, step.joins, memory).next_stage():
        for number in stage.jobs:
            Comparison(folder, units, step.bands, step.joins, memory).run(stage.name, number)
        jobs += len(stage.jobs)
    figures = {
        "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "jobs": jobs,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
        "dropped": read_json(folder / DONE)["dropped"],
    }  # fmt: skip
    (folder / FOUND).write_text(json.dumps(figures))


def _keys(chance: np.random.Generator, bands: int, documents: int, units: int) -> Iterator[bytes]:
    keys = chance.integers(0, 1 << 64, (documents, bands, 2), np.uint64)
    # Copies agree on some of their bands.
    copied = np.flatnonzero(chance.random(documents) < 0.1)
    numbers = chance.integers(0, max(1, units * documents // 40), len(copied), np.uint64)
    for band in range(0, bands, 3):
        keys[copied, band] = ((numbers * np.uint64(64) + np.uint64(band + 1)) * np.uint64(0x9E3779B97F4A7C15))[:, None]
    return (row.tobytes() for row in keys)


if __name__ == "__main__":
    main()
