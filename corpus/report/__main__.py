"""`python -m corpus.report data/<recipe>`: make a build's report again."""

from __future__ import annotations

import argparse
from pathlib import Path

from corpus.base.errors import UserError, command


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m corpus.report",
        description="Write a build's report.html again, from its manifest and streams.",
    )
    parser.add_argument("build", type=Path, help="a build directory, such as data/sample")
    with command():
        build: Path = parser.parse_args(argv).build
        from corpus.records.manifest import MANIFEST_FILE, load_manifest

        if not (build / MANIFEST_FILE).is_file():
            raise UserError(
                "holds no manifest", where=str(build), fix="Build the recipe first: python -m corpus.build RECIPE."
            )
        from corpus.report.page import write_report

        print(write_report(load_manifest(build), build))


if __name__ == "__main__":
    main()
