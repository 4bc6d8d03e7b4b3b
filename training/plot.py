"""Draws what runs did: loss, loss per source, learning rate and throughput. `python -m training.plot RUN...`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from corpus.base.errors import command
from training.run.folder import read_metrics
from training.run.plotting import draw

Rows = list[dict[str, Any]]


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.plot`."""
    parser = argparse.ArgumentParser(prog="python -m training.plot", description="Plot one or more runs into a PNG.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--to", type=Path, help="file to write (default: loss.png in the first run's folder)")
    args = parser.parse_args(argv)
    to = args.to or args.runs[0] / "loss.png"
    names = [run.resolve().name for run in args.runs]
    # Runs of one name are told apart by their paths.
    labels = [str(run) if names.count(name) > 1 else name for run, name in zip(args.runs, names, strict=True)]
    print(draw({label: read_metrics(run) for label, run in zip(labels, args.runs, strict=True)}, to))


if __name__ == "__main__":
    with command():
        main()
