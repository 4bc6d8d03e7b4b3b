"""Write a trained model as a Hugging Face folder: `python -m training.export RUN --to OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from corpus.base.errors import command


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.export`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="Write a run's weights as a Hugging Face folder that loads without remote code.",
    )
    parser.add_argument("run", type=Path, help="a run's folder, for its newest checkpoint, or one RUN/checkpoints/NAME")
    parser.add_argument("--to", type=Path, required=True, metavar="OUT", help="folder to write; must not exist")
    args = parser.parse_args(argv)
    # Imported here: `--help` should not wait for torch.
    from training.hf.exporting import export_run

    export_run(args.run, args.to)
    print(f"wrote {args.to}")


if __name__ == "__main__":
    with command():
        main()
