"""The trainer's command: `composer training/train.py --size tiny --recipe recipes/sample.yaml`, on 1..N processes."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script from a clone: Python put training/ first on its path, where `config` and others would be taken
    # for top-level modules, instead of the folder that holds `corpus` and `training`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from training.config import check_device, local_world_size, parse_args, resolve, world_size
from training.elastic import check_world
from training.process import StopSignal, reported_once


def main(argv: list[str] | None = None) -> None:
    """Train, or with --dry-run print what would be trained. User errors exit with code 2 and one line."""
    options = parse_args(argv)
    with reported_once():
        phases = resolve(options)
        if options.dry_run:
            from training.dry_run import report

            print(report(options, phases))
            return
        for phase in phases:
            local = local_world_size()
            training = phase.recipe.training
            check_world(training.global_batch, training.canonical_nodes, world_size() // local, local)
        stop = StopSignal()
        check_device(options)
        from training.run import run

        run(options, phases, stop)


if __name__ == "__main__":
    main()
