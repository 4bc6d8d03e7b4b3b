"""Parquet: one record per row, from the row groups of a byte range."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.documents.compression import DamagedFile
from corpus.documents.record import MAX_RECORD_BYTES, BadRecord, Item, Record
from corpus.documents.units import WHOLE

BATCH_ROWS, BATCH_BYTES = 1024, 64 << 20
"""Parquet rows are turned into records in batches of so many, or of so many bytes when rows are long."""


def parquet_records(path: Path, start: int, end: int, columns: list[str] | None) -> Iterator[Item]:
    """The rows of the row groups whose middle lies in [start, end)."""
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
        raise DamagedFile(" ".join(str(error).split())[:200]) from None


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
