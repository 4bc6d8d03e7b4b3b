"""Reading the records of a unit: JSON lines, parquet rows, text files; whole, or a byte range of a file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import orjson

from corpus.base.errors import UserError
from corpus.documents.adapters import BadRecord, Record
from corpus.documents.units import WHOLE

BLOCK = 4 << 20
MAX_RECORD_BYTES = 64 << 20
"""A longer record is dropped under `too_large` without being held in memory.

One character beyond U+FFFF makes Python hold four bytes for each of a text: this keeps a worker under 1.5 GB.
"""
ZSTD_PIECE = 2 << 10
"""Compressed bytes unpacked at a time: zstd makes 32 KiB of one byte at most, so this bounds memory at 64 MiB."""
BATCH_ROWS, BATCH_BYTES = 1024, 64 << 20
"""Parquet rows are turned into records in batches of so many, or of so many bytes when rows are long."""

Item = tuple[str, Record | BadRecord]
"""(place inside the file, the record or why there is none)."""


class _DamagedFile(Exception):
    """The file ends or breaks before its time."""


def read_piece(
    path: Path,
    name: str,
    file_format: Literal["jsonl", "parquet", "text"],
    start: int,
    end: int,
    columns: list[str] | None,
) -> Iterator[Item]:
    """Yield the records of one piece in file order.

    A record that cannot be read comes as a BadRecord. A file that is cut off or damaged as a whole raises UserError
    naming it: what it should have held is unknown, so it can never be counted as read.
    """
    readers = {"jsonl": _jsonl, "text": _text}
    try:
        if file_format == "parquet":
            yield from _parquet(path, start, end, columns)
        else:
            yield from readers[file_format](path, name, start, end)
    except (_DamagedFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        # gzip and bz2 tell of damaged data by an OSError of their own, without the system's number.
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot be read: {error.strerror}", where=name) from None
        raise UserError(
            f"the file is cut off or damaged ({error or type(error).__name__})",
            where=name,
            fix="Delete the downloaded copy and run the same command again; if that fails too, the source is damaged.",
        ) from None


def open_decompressed(path: Path, name: str) -> BinaryIO:
    """Open a file for reading, decompressing by the ending of ``name``."""
    if name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if name.endswith((".zst", ".zstd")):
        return io.BufferedReader(_ZstdFile(path))
    if name.endswith(".bz2"):
        return cast(BinaryIO, bz2.open(path, "rb"))
    if name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(path, "rb"))
    return path.open("rb")


class _ZstdFile(io.RawIOBase):
    """A zstd stream of one or more frames that, unlike the library's reader, refuses a file cut off mid-frame."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor(max_window_size=1 << 30)
        self._file = path.open("rb")
        self._frame: Any = None
        self._input = b""
        self._ready = bytearray()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with decompressed bytes as far as they are at hand; 0 at the end."""
        while not self._ready:
            data = self._input or self._file.read(ZSTD_PIECE)
            self._input = b""
            if not data:
                if self._frame is not None:
                    raise _DamagedFile("zstd frame without an end")
                return 0
            if self._frame is None:
                self._frame = self._context.decompressobj()
            try:
                self._ready += self._frame.decompress(data)
            except self._error as error:
                raise _DamagedFile(str(error)) from None
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        del self._ready[:count]
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _lines(stream: BinaryIO, start: int, end: int) -> Iterator[tuple[int, bytes | None]]:
    """(byte offset, line) for each line that starts in [start, end); None for a line beyond MAX_RECORD_BYTES."""
    offset = start
    if start:
        stream.seek(start - 1)
        offset -= 1
    carry = b""
    skipping = bool(start)  # the line in progress at `start` belongs to the range before
    too_large, too_large_bytes = False, 0
    while True:
        block = stream.read(BLOCK)
        if not block:
            if too_large:
                yield offset, None
            elif carry and not skipping:
                yield offset, carry
            return
        parts = block.split(b"\n")
        for part in parts[:-1]:
            length = len(carry) + len(part) + 1
            if skipping:
                skipping = False
            elif too_large:
                yield offset, None
                length, too_large = too_large_bytes + len(part) + 1, False
            elif len(carry) + len(part) > MAX_RECORD_BYTES:
                yield offset, None
            else:
                yield offset, carry + part if carry else part
            offset += length
            carry = b""
            if end != WHOLE and offset >= end:
                return
        last = parts[-1]
        if too_large:
            too_large_bytes += len(last)
        elif skipping:
            offset += len(last)
            if end != WHOLE and offset >= end:
                return  # one long line covers the whole range
        else:
            carry = carry + last if carry else last
            if len(carry) > MAX_RECORD_BYTES:
                too_large, too_large_bytes, carry = True, len(carry), b""


def _jsonl(path: Path, name: str, start: int, end: int) -> Iterator[Item]:
    with open_decompressed(path, name) as stream:
        for offset, line in _lines(stream, start, end):
            if line is None:
                yield f"{offset}", BadRecord("too_large")
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                if not line.strip():
                    continue  # blank lines between records carry nothing
                yield f"{offset}", BadRecord(_why_not_json(line))
                continue
            yield f"{offset}", record if isinstance(record, dict) else BadRecord("not_an_object")


def _why_not_json(line: bytes) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "invalid_utf8"
    return "invalid_json"


def _text(path: Path, name: str, start: int, end: int) -> Iterator[Item]:
    with open_decompressed(path, name) as stream:
        data = stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        yield "0", BadRecord("too_large")
        return
    try:
        yield "0", {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        yield "0", BadRecord("invalid_utf8")


def _parquet(path: Path, start: int, end: int, columns: list[str] | None) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        size = path.stat().st_size
        if columns is not None:
            present = set(file.schema_arrow.names)
            columns = [column for column in columns if column in present]
        row = 0
        for group in range(file.num_row_groups):
            meta = file.metadata.row_group(group)
            if end == WHOLE or start <= _middle(meta, size) < end:
                seen = row
                fitting = BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)
                rows = max(1, min(BATCH_ROWS, fitting))
                for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False):
                    for record in _rows(batch):
                        yield f"row {seen}", record
                        seen += 1
            row += meta.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _DamagedFile(" ".join(str(error).split())[:200]) from None


def _rows(batch: Any) -> Iterator[Record | BadRecord]:
    if batch.nbytes <= MAX_RECORD_BYTES:
        try:
            yield from batch.to_pylist()
            return
        except (ValueError, OverflowError):
            pass
    # One value that Python cannot hold fails the whole batch; row by row only its own record is lost.
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        if row.nbytes > MAX_RECORD_BYTES:
            yield BadRecord("too_large")
            continue
        try:
            yield row.to_pylist()[0]
        except UnicodeDecodeError:
            yield BadRecord("invalid_utf8")
        except (ValueError, OverflowError):  # a date beyond Python's, for one
            yield BadRecord("invalid_value")


def _middle(meta: Any, size: int) -> int:
    """Byte in the middle of a row group, from the footer; decides which byte range it belongs to."""
    columns = [meta.column(index) for index in range(meta.num_columns)]
    starts = [c.data_page_offset if c.dictionary_page_offset is None else c.dictionary_page_offset for c in columns]
    middle = min(starts, default=0) + sum(column.total_compressed_size for column in columns) // 2
    # A footer that lies must not put rows where no range looks for them.
    return int(min(max(middle, 0), size - 1))
