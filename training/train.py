"""The trainer's command: `composer training/train.py --size tiny --recipe recipes/sample.yaml`, on 1..N processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script from a clone: Python put training/ first on its path, where `data` and others would be taken
    # for top-level modules, instead of the folder that holds `corpus` and `training`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from training.run import checkpoint
from training.run.folder import RunFolder
from training.run.options import parse_args
from training.run.phases import plan, resolve
from training.run.ranks import StopSignal, follow_launcher, reported_once, say
from training.run.standing import last_steps, look, nothing_left, run_name
from training.run.starting_weights import find_weights
from training.run.world import check_device, check_startable


def main(argv: list[str] | None = None) -> None:
    """Train, or with --dry-run print what would be trained. User errors exit with code 2 and one line."""
    launcher = os.getppid()
    options = parse_args(argv)
    with reported_once():
        follow_launcher(launcher)
        if options.dry_run:
            from training.run.dry_run import report

            print(report(options, plan(options)))
            return
        phases = resolve(options)
        for phase in phases:
            check_startable(phase)
        folder = RunFolder(options.out / run_name(options, phases))
        standing = look(folder, options, phases)
        if standing and standing.is_done(last_steps(phases, options.until)):
            say(nothing_left(folder, standing))
            return
        if options.load and not checkpoint.listing(folder.checkpoints):
            find_weights(options.load, verify=False)
        say("loading torch and Composer ...")
        stop = StopSignal()
        check_device(options)
        from training.run.trainer import run

        run(options, phases, stop)


if __name__ == "__main__":
    main()
