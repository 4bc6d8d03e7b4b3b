"""Parquet: one record per row, from any byte range of a file; a row group of any size is shared by its ranges."""

from __future__ import annotations

import bisect
import os
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from corpus.acquire.ranges import Readable
from corpus.base.errors import UserError
from corpus.documents.compression import DamagedFile
from corpus.documents.fields import readings
from corpus.documents.record import INVALID_UTF8, MAX_RECORD_BYTES, BadRecord, Item, Record, Unreadable
from corpus.documents.sniff import refuse_binary
from corpus.documents.stand_ins import refuse_stand_in
from corpus.documents.units import WHOLE

BATCH_ROWS, BATCH_BYTES = 1024, 64 << 20
"""Rows are turned into records in batches of so many, or of so many bytes when rows are long."""
BUFFER_BYTES = 1 << 20
"""Read of a column at once. The library's default holds whole row groups, which may be files."""
MAGIC = (b"PAR1", b"PARE")
"""The file's first and last bytes; the second kind has an encrypted footer."""


def parquet_records(path: Readable, name: str, start: int, end: int, fields: Collection[str] | None) -> Iterator[Item]:
    """The rows that fall into [start, end): a row group's are spread evenly over its bytes.

    Only the columns in which ``fields`` may lie are read. Raises UserError for a file that is no parquet file, or one
    beyond what can be read here.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_stand_in(path, name)
    _refuse_other(path, name)
    size = path.stat().st_size
    try:
        with pq.ParquetFile(_source(path), pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            columns = _columns(file.schema_arrow, fields)
            _refuse_twins(file.schema_arrow, columns, name)
            row = 0
            for group in range(file.num_row_groups):
                meta = file.metadata.row_group(group)
                low, high = (0, meta.num_rows) if end == WHOLE else _rows_between(meta, size, start, end)
                for place, record in _group_rows(file, group, low, high, columns):
                    yield f"row {row + place}", record
                row += meta.num_rows
    except MemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        what = " ".join(str(error).split())[:200]
        if "crypt" in what:
            raise UserError("is encrypted", where=name, fix="Decrypt it, or leave it out.") from None
        if isinstance(error, pa.ArrowNotImplementedError):
            raise UserError(
                f"cannot be read by pyarrow {pa.__version__} ({what})",
                where=name,
                fix="Write it again with ordinary types and a common compression, or leave it out.",
            ) from None
        raise DamagedFile(what) from None


def _source(path: Readable) -> Any:
    """What pyarrow reads from: a path where there is one, which is faster."""
    return path if isinstance(path, os.PathLike) else path.open("rb")


def _refuse_other(path: Readable, name: str) -> None:
    """Raise when the file begins as one of another format does; a damaged one may begin anyhow."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head or head.startswith(MAGIC):
        return
    refuse_binary(head, name)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return
    if b"\0" not in head:
        raise DamagedFile("it begins as text does, not as a parquet file")


def _columns(schema: Any, fields: Collection[str] | None) -> list[str] | None:
    """Dotted names of the columns, and of members of structs, in which the values at ``fields`` may lie."""
    if fields is None:
        return None
    return list(dict.fromkeys(name for path in sorted(fields) for name in _members(list(schema), path, "")))


def _members(members: list[Any], path: str, above: str) -> Iterator[str]:
    import pyarrow as pa

    by_name = {member.name: member.type for member in members}
    for key, rest in readings(path):
        if key not in by_name:
            continue
        if rest and pa.types.is_struct(by_name[key]):
            yield from _members(list(by_name[key]), rest, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def _refuse_twins(schema: Any, columns: list[str] | None, name: str) -> None:
    """Of two columns of one name only one would be read."""
    for column, count in Counter(schema.names).items():
        if count > 1 and (columns is None or any(f"{one}.".startswith(f"{column}.") for one in columns)):
            raise UserError(
                f"has {count} columns called '{column}'", where=name, fix="Rename all but the one that counts."
            )


def _rows_between(meta: Any, size: int, start: int, end: int) -> tuple[int, int]:
    """(first, end) of the rows of a row group that fall into the bytes [start, end) of a file of ``size`` bytes."""
    columns = [meta.column(index) for index in range(meta.num_columns)]
    starts = [c.data_page_offset if c.dictionary_page_offset is None else c.dictionary_page_offset for c in columns]
    first, length = min(starts, default=0), max(0, sum(column.total_compressed_size for column in columns))

    def place(row: int) -> int:
        # A footer that lies must not put rows where no range looks for them.
        return min(max(first + length * row // meta.num_rows, 0), size - 1)

    rows = range(meta.num_rows)
    return bisect.bisect_left(rows, start, key=place), bisect.bisect_left(rows, end, key=place)


def _group_rows(
    file: Any, group: int, low: int, high: int, columns: list[str] | None
) -> Iterator[tuple[int, Record | BadRecord]]:
    """(number inside the row group, record) of its rows from ``low`` to ``high``."""
    if low >= high:
        return
    meta = file.metadata.row_group(group)
    fitting = BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)
    rows = max(1, min(BATCH_ROWS, fitting))
    first = 0
    for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False):
        # Parquet has no way past rows but through them; those before `low` are never made into records.
        skipped, last = max(0, low - first), min(batch.num_rows, high - first)
        if skipped < last:
            yield from enumerate(_rows(batch.slice(skipped, last - skipped)), first + skipped)
        first += batch.num_rows
        if first >= high:
            return


def _rows(batch: Any) -> Iterator[Record | BadRecord]:
    if batch.nbytes <= MAX_RECORD_BYTES:
        try:
            records = batch.to_pylist()
        except MemoryError:
            raise
        except Exception:  # whatever the libraries of dates, zones and numbers raise
            records = None
        if records is not None:
            yield from records
            return
    # One value that Python cannot hold fails the whole batch; value by value only it is lost.
    for index in range(batch.num_rows):
        if batch.slice(index, 1).nbytes > MAX_RECORD_BYTES:
            yield BadRecord("too_large")
        else:
            yield {name: _held(batch.column(place)[index]) for place, name in enumerate(batch.schema.names)}


def _held(value: Any) -> Any:
    """A value as Python holds it, Unreadable where it cannot; of a list or struct only the part that it cannot hold."""
    import pyarrow as pa

    try:
        return value.as_py()
    except MemoryError:
        raise
    except UnicodeDecodeError:
        failed = Unreadable(INVALID_UTF8)
    except Exception:
        failed = Unreadable("invalid_value")
    if isinstance(value, pa.MapScalar):
        return [(_held(pair[0]), _held(pair[1])) for pair in value.values]
    if isinstance(value, pa.ListScalar | pa.FixedSizeListScalar):
        return [_held(part) for part in value.values]
    if isinstance(value, pa.StructScalar):
        return {value.type.field(place).name: _held(value[place]) for place in range(value.type.num_fields)}
    return failed
