"""Which document a token of a stream is from: each unit keeps the place and the length of its documents.

`places.zst` of a unit holds, for every kept document in order, the file (its number among the unit's pieces), the
place inside it (first byte, or row) and the number of its ids, boundary ids included: about five bytes a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.records.stream import StreamRecord, UnitRecord
from corpus.streams.plan import PLACES_FILE, TAIL_FILE
from corpus.tokenization.pack import join_tail

ROW_MARK = "row "
"""Before the place of a parquet file's record, which is a row's number and no byte."""
ROW = np.dtype([("file", "<u4"), ("place", "<u8"), ("ids", "<u4")])


class Part(NamedTuple):
    """A run of a sample's ids that belongs to one document."""

    document: str
    """`file:place`, as reports and removed documents name it; "" for a mark that belongs to none."""
    first: int
    """Place of the run's first id among the document's ids, boundary ids included."""
    length: int
    of: int
    """How many ids the document has."""


def packed_places(files: Sequence[str], batches: Iterable[tuple[Sequence[str], NDArray[np.int64]]]) -> bytes:
    """The content of a unit's places file; ``batches`` are (documents' names, their numbers of ids)."""
    number = {name: index for index, name in enumerate(dict.fromkeys(files))}
    parts = []
    for names, lengths in batches:
        rows = np.empty(len(names), ROW)
        for index, name in enumerate(names):
            file, _, place = name.rpartition(":")
            rows[index] = (number[file], int(place.removeprefix(ROW_MARK)), 0)
        rows["ids"] = lengths
        parts.append(rows)
    rows = np.concatenate(parts) if parts else np.empty(0, ROW)
    # Column by column: neighbouring values are alike, which is what compresses.
    return zstandard.ZstdCompressor().compress(b"".join(rows[name].tobytes() for name in ROW.names or ()))


def _unpacked(content: bytes) -> NDArray[np.void]:
    raw = zstandard.ZstdDecompressor().decompress(content)
    count = len(raw) // ROW.itemsize
    rows, at = np.empty(count, ROW), 0
    for name in ROW.names or ():
        size = ROW[name].itemsize * count
        rows[name] = np.frombuffer(raw[at : at + size], ROW[name])
        at += size
    return rows


def sample_parts(folder: Path, record: StreamRecord, sample: int) -> list[Part]:
    """The documents of one sample of a stream, in order; raises UserError when the stream does not tell."""
    if not 0 <= sample < record.samples:
        raise UserError(f"there is no sample {sample}", where="--sample", fix=f"Use 0 to {record.samples - 1}.")
    row, first = record.seq_len + 1, 0
    for unit in record.units:
        if sample < first + unit.samples:
            start = (sample - first) * row
            return _parts(folder, unit, start, start + row)
        first += unit.samples
    return list(_tail_parts(folder, record, (sample - first) * row, row))


def _tail_parts(folder: Path, record: StreamRecord, start: int, row: int) -> Iterator[Part]:
    """The parts of ``row`` ids from ``start`` on of the units' left-over ids, joined as the tail is."""
    at = 0
    for unit in record.units:
        if not unit.tokens.remainder:
            continue
        stored = np.frombuffer((folder / "units" / f"{unit.unit:06d}" / TAIL_FILE).read_bytes(), "<u4")
        marks = join_tail(stored, record.boundary, record.tokenizer.bos_id)[1]
        end = at + marks + unit.tokens.remainder
        low, high = max(start, at), min(start + row, end)
        if low < high:
            if low < at + marks:
                yield Part("", 0, at + marks - low, marks)
            inside = unit.samples * (record.seq_len + 1) - at - marks
            yield from _parts(folder, unit, max(low, at + marks) + inside, high + inside)
        at = end
        if at >= start + row:
            return


def _parts(folder: Path, unit: UnitRecord, start: int, end: int) -> list[Part]:
    """The documents of ids ``start`` to ``end`` of a unit."""
    path = folder / "units" / f"{unit.unit:06d}" / PLACES_FILE
    if not path.is_file():
        raise UserError("does not tell where its samples are from", where=str(path.parent), fix="Build it again.")
    rows = _unpacked(path.read_bytes())
    files = list(dict.fromkeys(piece[0] for piece in unit.pieces))
    ends = np.cumsum(rows["ids"], dtype=np.int64)
    parts = []
    index = int(np.searchsorted(ends, start, side="right"))
    while start < end:
        size = int(rows["ids"][index])
        begin = int(ends[index]) - size
        stop = min(end, int(ends[index]))
        file = files[rows["file"][index]]
        name = f"{file}:{ROW_MARK if file.endswith('.parquet') else ''}{rows['place'][index]}"
        if stop > start:
            parts.append(Part(name, start - begin, stop - start, size))
        start, index = stop, index + 1
    return parts
