"""`python -m benchmarks.build_workers`: how much faster a build is with N workers than with one.

Shared machines change their speed from minute to minute, so the two builds take turns and each pair has a ratio of its
own. Every build is a whole `python -m corpus.build`, start-up and report included.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.builds import build_arguments, build_command, make_tokenizer, timed, write_jsonl, write_recipe
from benchmarks.common import code_documents, show


def main() -> None:
    """Entry point."""
    parser = build_arguments(__doc__)
    parser.add_argument("--megabytes", type=int, default=2000, help="input of each build")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        walls = pairs(args, Path(folder))
    figures = [(one, many, one / many) for one, many in walls]
    rows = [(str(number), *row) for number, row in enumerate(figures, 1)]
    medians = [statistics.median(column) for column in zip(*figures, strict=True)]
    show(
        f"Builds of {args.megabytes} MB (Llama 3 tokenizer)",
        ("pair", "1 worker, s", f"{args.workers} workers, s", "ratio"),
        [*rows, ("median", *medians)],
        args.out,
    )


def pairs(args: argparse.Namespace, work: Path) -> list[tuple[float, float]]:
    """Wall seconds with one worker and with `args.workers`, pair by pair."""
    files = [work / "input.jsonl"]
    write_jsonl(files[0], code_documents(args.megabytes * 1_000_000))
    recipe = write_recipe(work / "bench.yaml", files)
    make_tokenizer(recipe, work / "data")
    walls = []
    for pair in range(args.pairs):
        one, many = (
            _build(build_command(recipe, work / "data", "--workers", str(workers)), work / "data")
            for workers in (1, args.workers)
        )
        walls.append((one, many))
        print(f"pair {pair + 1} of {args.pairs}: {one:.1f} s, {many:.1f} s", file=sys.stderr)
    return walls


def _build(command: list[str], data: Path) -> float:
    shutil.rmtree(data / "streams", ignore_errors=True)
    return timed(command)[0]


if __name__ == "__main__":
    main()
