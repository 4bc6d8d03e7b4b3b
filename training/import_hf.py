"""Make a Hugging Face checkpoint a starting point: `python -m training.import_hf FOLDER --size NAME --to OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from corpus.base.errors import command
from training.model.shapes import get_size


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.import_hf`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.import_hf",
        description="Check a local Hugging Face checkpoint against a size and write it for the trainer's --load.",
    )
    parser.add_argument("folder", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("--size", required=True, help="the checkpoint's size; `python -m training.sizes` lists them")
    parser.add_argument("--to", type=Path, required=True, metavar="OUT", help="folder to write; must not exist")
    args = parser.parse_args(argv)
    # Imported here: `--help` should not wait for torch.
    from training.hf.importing import import_hf
    from training.run.overrides import model_options

    size = get_size(args.size)
    model, notes = import_hf(args.folder, size, args.to)
    for note in notes:
        print(f"note: {note}")
    own = {name: value for name, value in vars(model).items() if value != getattr(size, name)}
    print(f"wrote {args.to}; train on with {f'--load {args.to} {model_options(own)}'.strip()}")


if __name__ == "__main__":
    with command():
        main()
