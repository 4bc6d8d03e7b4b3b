"""What a scaled-down build reads of a source: the beginnings of many units, spread over its files and folders.

The plan of a recipe and the build itself count the bytes here, so that they agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corpus.acquire import SourceFile
from corpus.documents.compression import COMPRESSED
from corpus.documents.sniff import REMOTE_HEAD
from corpus.documents.units import WHOLE, Piece, Unit, plan_units

SPREAD = 32
"""Units that a token limit is spread over, where the source has as many."""
SMALLEST_UNIT = 16 << 10
"""Bytes; a small source is not cut into smaller pieces for the sake of SPREAD."""
PACKED = 0.4
"""Size of compressed upstream files (parquet, gzip, zstd) as a share of their text."""
MARGIN = 1.25
"""Bytes asked for at once, against those that the tokens wanted should take."""
WHOLE_BELOW = 1 << 20
"""Bytes; smaller files are fetched whole, checked against their hash and kept."""
SMALLEST_WINDOW = 256 << 10
"""Bytes asked for at once, at least."""
FOOTER, COLUMN = 64 << 10, 1 << 20
"""Bytes of a parquet file's footer, and of a column read at once."""


@dataclass(frozen=True)
class Sample:
    """Units in the order they are taken in, and how many ids of each."""

    units: list[Unit]
    cap: int
    unit_bytes: int
    parts: dict[str, int]
    """Bytes fetched of each file that is expected to be needed, where parts of it will do."""
    whole: frozenset[str]
    """Files expected to be needed and better fetched whole."""


def sample_units(
    files: Sequence[SourceFile], file_format: str, *, unit_bytes: int, seed: int, limit: int, row: int,
    bytes_per_token: float,
) -> Sample:  # fmt: skip
    """How ``limit`` ids are taken from a source: at least one sample of ``row`` ids from each unit.

    Depends on names and sizes only. Parquet and compressed files are read from their beginnings, as they cannot be
    entered in the middle for less than what lies before.
    """
    files = sorted(files, key=lambda file: file.name)
    total = sum(file.size or 0 for file in files)
    small = min(unit_bytes, max(SMALLEST_UNIT, total // (4 * SPREAD)))
    if file_format == "parquet":
        ordered = [Unit(index, (Piece(file.name, 0, WHOLE),)) for index, file in enumerate(files)]
    else:
        folders: dict[str, list[SourceFile]] = {}
        for file in files:
            folders.setdefault(folder_of(file.name), []).append(file)
        ordered = [unit for folder in sorted(folders) for unit in plan_units(folders[folder], file_format, small)]
    numbered = [Unit(index, unit.pieces) for index, unit in enumerate(ordered)]
    units = [Unit(index, unit.pieces) for index, unit in enumerate(_spread(numbered, seed))]
    sizes = {file.name: file.size for file in files}
    held = [_expected_ids(unit, sizes, file_format, bytes_per_token) for unit in units]
    cap = max(row, -(-limit // SPREAD))
    while cap < limit and sum(min(cap, ids) for ids in held) < limit:
        cap *= 2
    cap = min(cap, max(row, limit))
    return Sample(units, cap, small, *_fetched(units, sizes, file_format, cap, limit, bytes_per_token))


def _spread(units: list[Unit], seed: int) -> list[Unit]:
    """Units so that any first few of them lie evenly over the list, each folder's first where folders are few."""
    count, bits = len(units), max(1, (len(units) - 1).bit_length())

    def place(index: int) -> int:
        turned = (index + seed) % count
        return int(f"{(turned << bits) // count:0{bits}b}"[::-1], 2)

    order = [units[index] for index in sorted(range(count), key=place)]
    first: dict[str, Unit] = {}
    for unit in order:
        first.setdefault(folder_of(unit.pieces[0].file), unit)
    if len(first) > SPREAD // 2:
        return order
    ahead = list(first.values())
    taken = set(ahead)
    return ahead + [unit for unit in order if unit not in taken]


def folder_of(name: str) -> str:
    """The folder of a file, which is often a configuration of its source."""
    return name.rpartition("/")[0]


def is_packed(name: str, file_format: str) -> bool:
    """Whether a file's bytes are fewer than its text's."""
    return file_format == "parquet" or name.endswith(COMPRESSED)


def piece_bytes(piece: Piece, size: int | None) -> int | None:
    """Stored bytes of a piece of a file; None where they are unknown."""
    return piece.end - piece.start if piece.end != WHOLE else size


def expected_ids(stored: float, name: str, file_format: str, bytes_per_token: float) -> int:
    """About how many tokens so many bytes of a file hold."""
    return int(stored / (PACKED if is_packed(name, file_format) else 1.0) / bytes_per_token)


def _expected_ids(unit: Unit, sizes: dict[str, int | None], file_format: str, bytes_per_token: float) -> int:
    return sum(
        expected_ids(piece_bytes(piece, sizes[piece.file]) or 0, piece.file, file_format, bytes_per_token)
        for piece in unit.pieces
    )


def window(cap: int, name: str, file_format: str, bytes_per_token: float) -> int:
    """Bytes of a file that are asked for at once when ``cap`` ids are wanted of it."""
    wanted = MARGIN * cap * bytes_per_token * (PACKED if is_packed(name, file_format) else 1.0)
    return max(SMALLEST_WINDOW, int(wanted))


def read_bytes(piece: Piece, size: int | None, file_format: str, ahead: int) -> int | None:
    """Bytes that reading the beginning of a piece fetches; None when the file is better fetched whole.

    ``ahead``: see :func:`window`.
    """
    if size is None or size <= WHOLE_BELOW or file_format == "text":
        return None
    if file_format == "parquet":
        needed = 2 * FOOTER + max(COLUMN, ahead)
    else:
        needed = min(piece.start, REMOTE_HEAD) + min(ahead, size - piece.start)
    return needed if needed < size // 2 else None


def _fetched(
    units: list[Unit], sizes: dict[str, int | None], file_format: str, cap: int, limit: int, bytes_per_token: float
) -> tuple[dict[str, int], frozenset[str]]:
    parts: dict[str, int] = {}
    whole: set[str] = set()
    have = 0
    for unit in units:
        if have >= limit:
            break
        taken = 0
        for piece in unit.pieces:
            if taken >= cap:
                break
            name, size = piece.file, sizes[piece.file]
            part = read_bytes(piece, size, file_format, window(cap, name, file_format, bytes_per_token))
            parts[name] = parts.get(name, 0) + (part or 0)
            if part is None or parts[name] > (size or 0) // 2:
                whole.add(name)
            taken += expected_ids(piece_bytes(piece, size) or 0, name, file_format, bytes_per_token)
        have += min(cap, taken)
    return {name: part for name, part in parts.items() if name not in whole}, frozenset(whole)


def planned_bytes(sample: Sample, files: Iterable[SourceFile]) -> int:
    """Bytes that a build fetches for a sample."""
    return sum(sample.parts.values()) + sum(file.size or 0 for file in files if file.name in sample.whole)
