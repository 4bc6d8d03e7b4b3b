"""Units: the fixed slices of a source that are worked on, retried and resumed independently."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from corpus.acquire import SourceFile
from corpus.documents.compression import COMPRESSED

MAX_FILES_PER_UNIT = 4096
"""Tiny files are grouped until a unit has its bytes or this many files."""
EXPANSION = 4
"""Compressed files count for so many times their bytes when small ones are grouped: about the text in them."""
WHOLE = -1
"""End of a piece that is a whole file."""


@dataclass(frozen=True)
class Piece:
    """A byte range of one file: the lines whose first byte lies inside, or as large a share of the rows of parquet."""

    file: str
    start: int
    end: int


@dataclass(frozen=True)
class Unit:
    """A slice of a source. ``index`` orders units within the stream."""

    index: int
    pieces: tuple[Piece, ...]

    @property
    def folder(self) -> str:
        """Name of the unit's folder inside the stream."""
        return f"{self.index:06d}"


def splittable(file: SourceFile, file_format: str) -> bool:
    """Whether the file can be read from the middle: plain JSON lines and parquet can, compressed text cannot."""
    if file.size is None:
        return False
    if file_format == "parquet":
        return True
    return file_format == "jsonl" and not file.name.endswith(COMPRESSED)


def plan_units(files: list[SourceFile], file_format: str, unit_bytes: int) -> list[Unit]:
    """Slice files (in name order) into units of about ``unit_bytes`` stored bytes, fewer where they are compressed.

    The plan depends on names and sizes only, never on workers.
    """
    groups: list[list[Piece]] = []
    open_group: list[Piece] = []
    open_bytes = 0
    for file in sorted(files, key=lambda f: f.name):
        size = file.size or 0
        if splittable(file, file_format) and size > unit_bytes:
            parts = -(-size // unit_bytes)
            cuts = [size * part // parts for part in range(parts + 1)]
            groups += [[Piece(file.name, low, high)] for low, high in itertools.pairwise(cuts)]
            continue
        size *= EXPANSION if file_format == "parquet" or file.name.endswith(COMPRESSED) else 1
        if open_group and (open_bytes + size > unit_bytes or len(open_group) >= MAX_FILES_PER_UNIT):
            groups.append(open_group)
            open_group, open_bytes = [], 0
        open_group.append(Piece(file.name, 0, WHOLE))
        # A file of unknown size fills a unit of its own.
        open_bytes += size if file.size is not None else unit_bytes
    if open_group:
        groups.append(open_group)
    groups.sort(key=lambda pieces: (pieces[0].file, pieces[0].start))
    return [Unit(index, tuple(pieces)) for index, pieces in enumerate(groups)]
