"""`python -m benchmarks.saving --size 125m`: how long a save holds up a step of training.

The command that users type, on a build of random ids, saving every few steps. A step's time runs from the end of the
step before, saves included. "in the background" is the trainer as it is; "waited for" has each save wait until it is on
disk, as before saves were written beside the training loop. Each way is a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import arguments, show

WAYS = ("in the background", "waited for")
INTERVAL = 8
"""Steps between saves: enough for the disk to take one before the next."""
WARM_UP = 3


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--size", default="125m", help="model size (default: 125m)")
    parser.add_argument("--scaled-down", action="store_true", help="few and narrow layers")
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2, help="sequences per step")
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to save (default: the folder for temporary files)")
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(saving(args)))
        return
    rows: list[tuple[Any, ...]] = []
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.saving", *sys.argv[1:], "--run", way]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        found = json.loads(out.splitlines()[-1])
        plain, held = found["plain"], found["held"]
        rows.append((way, plain, held, held / plain, held - plain, found["gb"]))
    columns = ("saves", "step, s", "step with a save, s", "x a step", "held up, s", "GB")
    show("steps that save", columns, rows, args.out, size=args.size, saves=args.saves)


def saving(args: argparse.Namespace) -> dict[str, float]:
    """Medians over the steps of one run: `plain` of those without a save, `held` of those that wait for one."""
    from benchmarks.synthetic import write_build
    from training.model.shapes import get_size, scaled_down
    from training.run import checkpoint
    from training.run.callbacks.background import Background
    from training.run.folder import read_metrics
    from training.train import main as train

    if args.run == "waited for":
        start = Background.start

        def start_and_wait(self: Background, work: Any) -> None:
            start(self, work)
            self.wait()

        Background.start = start_and_wait  # type: ignore[method-assign]
    size = get_size(args.size)
    cfg = scaled_down(size) if args.scaled_down else size
    steps = WARM_UP + INTERVAL * (args.saves + 1)
    with tempfile.TemporaryDirectory(prefix="saving-", dir=args.folder) as name:
        folder = Path(name)
        recipe = write_build(
            folder, vocab_size=cfg.vocab_size, seq_len=args.seq_len, global_batch=args.batch, steps=steps
        )
        given = {
            "--size": args.size, "--recipe": recipe, "--data": folder / "data",
            "--cache": folder / "cache", "--out": folder, "--run-name": "run",
            "--workers": 0, "--save-interval": INTERVAL, "--keep": 1, "--device-batch": args.batch,
        }  # fmt: skip
        words = [str(part) for pair in given.items() for part in pair]
        # What the trainer prints is not ours to print: the last line of this process is its figures.
        with contextlib.redirect_stdout(sys.stderr):
            train([*words, *["--scaled-down"] * args.scaled_down])
        rows = read_metrics(folder / "run")
        (newest,) = checkpoint.listing(folder / "run" / "checkpoints")
        size_on_disk = sum(file.stat().st_size for file in newest.iterdir())
    # A save comes after its step's row is written: the next step's time holds it.
    held = [row["seconds"] for row in rows if row["step"] > WARM_UP and row["step"] % INTERVAL == 1]
    plain = [row["seconds"] for row in rows if row["step"] > WARM_UP and row["step"] % INTERVAL != 1]
    return {"plain": median(plain), "held": median(held), "gb": size_on_disk / 1e9}


if __name__ == "__main__":
    main()
