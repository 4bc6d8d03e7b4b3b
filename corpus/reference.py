"""`python -m corpus.reference [WORD]`: every key a recipe can have, from the docstrings of the code."""

from __future__ import annotations

import argparse
from pathlib import Path

from corpus.base.errors import UserError, command


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        parser = argparse.ArgumentParser(
            prog="python -m corpus.reference",
            description="Every key of a recipe: sources, origins, formats, record shapes, tokenizers, cleaning steps, "
            "hyperparameters, with their defaults.",
        )
        parser.add_argument("word", nargs="?", help="show only what has this word in it, such as minhash or parquet")
        parser.add_argument("--write", type=Path, metavar="FILE", help="write the whole page to FILE")
        args = parser.parse_args(argv)

        from corpus.recipe.reference import about, markdown, sections

        if args.write is not None:
            from corpus.base.files import atomic_write

            with atomic_write(args.write) as stream:
                stream.write(markdown(sections()).encode())
            print(args.write)
            return
        shown = about(args.word) if args.word else sections()
        if not shown:
            raise UserError(f"no key has the word '{args.word}'", fix="Leave it out to see all.")
        print(markdown(shown))


if __name__ == "__main__":
    main()
