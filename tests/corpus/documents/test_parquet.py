"""Parquet: ranges share row groups of any size, values that Python cannot hold cost no more than themselves."""

from __future__ import annotations

import datetime
import os
import random
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.acquire import SourceFile
from corpus.documents import parquet
from corpus.documents.adapters import FieldAdapter, MessagesAdapter
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord, Unreadable
from corpus.documents.units import WHOLE, plan_units
from tests.conftest import environment


def rows(path: Path, start: int = 0, end: int = WHOLE, fields: list[str] | None = None) -> list[Any]:
    """Records, as they come."""
    return [record for _, record in read_piece(path, path.name, "parquet", start, end, fields)]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.lists(st.integers(0, 4000), max_size=8),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_every_row_falls_into_exactly_one_range(groups: list[int], cuts: list[int], batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, number = Path(folder) / "x.parquet", 0
        schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
        with pq.ParquetWriter(path, schema, compression="none") as writer:
            for size in groups:
                numbers = list(range(number, number + size))
                writer.write_table(pa.table({"n": numbers, "text": [f"row {n}" for n in numbers]}, schema), size or 1)
                number += size
        size = path.stat().st_size
        bounds = sorted({0, size, *(cut for cut in cuts if cut < size)})
        before, parquet.BATCH_ROWS = parquet.BATCH_ROWS, batch
        try:
            pieces = [
                list(read_piece(path, "x", "parquet", low, high, ["n"]))
                for low, high in zip(bounds, bounds[1:], strict=False)
            ]
        finally:
            parquet.BATCH_ROWS = before
    whole = [item for piece in pieces for item in piece]
    assert whole == [(f"row {n}", {"n": n}) for n in range(number)]


def big_row_group(path: Path, megabytes: float) -> int:
    """One row group of random text, so that it is as large in the file; returns its number of rows."""
    generator = random.Random(0)
    texts = [generator.randbytes(2048).hex() for _ in range(int(megabytes * 256))]
    pq.write_table(pa.table({"text": texts, "n": range(len(texts))}), path, row_group_size=1 << 30, compression="none")
    return len(texts)


def test_one_row_group_is_shared_by_its_units(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    count = big_row_group(path, 2)
    units = plan_units([SourceFile("x.parquet", str(path), path.stat().st_size, None)], "parquet", 256 << 10)
    shares = [len(rows(path, piece.start, piece.end, ["n"])) for unit in units for piece in unit.pieces]
    assert len(shares) >= 8 and sum(shares) == count
    assert max(shares) < 1.2 * min(shares) + 2


def test_footers_that_lie_lose_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Column:
        dictionary_page_offset = None

        def __init__(self, offset: int, size: int) -> None:
            self.data_page_offset, self.total_compressed_size = offset, size

    for offset, size in ((10**15, 10**15), (-5, 3), (0, -7), (999, 10**6), (0, 0)):

        class Meta:
            num_columns, num_rows = 1, 10

            def column(self, _: int, offset: int = offset, size: int = size) -> Column:
                return Column(offset, size)

        shares = [parquet._rows_between(Meta(), 1000, low, low + 100) for low in range(0, 1000, 100)]
        assert [row for low, high in shares for row in range(low, high)] == list(range(10))


PEAK = """
import sys
from pathlib import Path
from corpus.documents.read import read_piece
import pyarrow.parquet
def peak():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
small, big, start, end = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
for _ in read_piece(small, "x", "parquet", 0, -1, ["text"]): pass
before = peak()
count = sum(1 for _ in read_piece(big, "x", "parquet", start, end, ["text"]))
print(count, peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's account of memory")
def test_a_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    big_row_group(tmp_path / "small.parquet", 0.1)
    count = big_row_group(tmp_path / "big.parquet", 96)
    size = (tmp_path / "big.parquet").stat().st_size
    for start, end, wanted in ((0, WHOLE, count), (size // 2, size, count / 2)):
        command = [sys.executable, "-c", PEAK, tmp_path / "small.parquet", tmp_path / "big.parquet", start, end]
        result = subprocess.run(list(map(str, command)), env=environment(), capture_output=True, text=True, timeout=240)
        assert result.returncode == 0, result.stderr
        found, megabytes = result.stdout.split()
        assert abs(int(found) - wanted) < 100
        assert float(megabytes) < 48


FAR = 2**62
BEYOND: dict[str, pa.Array] = {
    "zone 'tzutc()'": pa.array([0, 1, 2], pa.timestamp("us", "tzutc()")),
    "zone of no place": pa.array([0, 1, 2], pa.timestamp("ms", "Mars/Olympus")),
    "year beyond 9999": pa.array([0, FAR, 0], pa.timestamp("us")),
    "nanoseconds": pa.array([1, 2, FAR], pa.timestamp("ns", "UTC")),
    "date beyond 9999": pa.array([0, 2**31 - 1, 0], pa.date32()),
    "duration": pa.array([0, FAR, 0], pa.duration("s")),
    "nanosecond duration": pa.array([1, 2, FAR], pa.duration("ns")),
    "time": pa.array([1, 2, 3], pa.time64("ns")),
    "decimal": pa.array([Decimal("1.5"), None, Decimal(10**60)], pa.decimal256(70, 2)),
    "largest": pa.array([2**64 - 1, 0, 1], pa.uint64()),
    "not a number": pa.array([float("nan"), float("inf"), None], pa.float64()),
    "bytes": pa.array([b"\xff", b"", None], pa.binary()),
    "no text": pa.Array.from_buffers(pa.string(), 3, pa.array([b"\xff", b"x", b"y"], pa.binary()).buffers()),
}


def nested(kind: str, values: pa.Array) -> pa.Array:
    """The three values inside a column of another shape."""
    offsets = pa.array([0, 1, 2, 3], pa.int32())
    if kind == "list":
        return pa.ListArray.from_arrays(offsets, values)
    if kind == "struct":
        return pa.StructArray.from_arrays([values, pa.array([1, 2, 3])], ["when", "n"])
    if kind == "list of structs":
        return pa.ListArray.from_arrays(offsets, nested("struct", values))
    if kind == "map":
        return pa.MapArray.from_arrays(offsets, pa.array(["k", "k", "k"]), values)
    return values


@pytest.mark.parametrize("kind", ["plain", "list", "struct", "list of structs", "map"])
@pytest.mark.parametrize("name", BEYOND)
def test_a_value_beyond_python_costs_no_text(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "other": nested(kind, BEYOND[name])}), path)
    text_of = FieldAdapter().function()
    for fields in (None, ["text"], ["text", "other"]):
        found = rows(path, fields=fields)
        assert [text_of(record) for record in found] == ["a", "b", "c"]
        assert set(found[0]) == {"text"} if fields == ["text"] else {"text", "other"}


def test_only_the_value_itself_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    when = BEYOND["year beyond 9999"]
    good = datetime.datetime(1970, 1, 1)
    pq.write_table(pa.table({"text": BEYOND["no text"], "s": nested("struct", when), "l": nested("list", when)}), path)
    lost = Unreadable("invalid_value")
    assert rows(path) == [
        {"text": Unreadable("invalid_utf8"), "s": {"when": good, "n": 1}, "l": [good]},
        {"text": "x", "s": {"when": lost, "n": 2}, "l": [lost]},
        {"text": "y", "s": {"when": good, "n": 3}, "l": [good]},
    ]
    for field, reason in (("text", "invalid_utf8"), ("s.when", "not_text"), ("l.0", "not_text")):
        with pytest.raises(BadRecord, match=reason):
            FieldAdapter(field=field).function()(rows(path)[0])
    with pytest.raises(BadRecord, match="invalid_value"):
        FieldAdapter(field="s.when").function()(rows(path)[1])


def test_messages_with_bad_times_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    turn = [pa.array(["user"] * 3), pa.array(["a", "b", "c"]), BEYOND["zone 'tzutc()'"]]
    turns = pa.StructArray.from_arrays(turn, ["role", "content", "at"])
    pq.write_table(pa.table({"messages": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), turns)}), path)
    assert [MessagesAdapter().function()(record) for record in rows(path)] == ["User: a", "User: b", "User: c"]


def test_files_without_rows_or_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for table in (pa.table({}), pa.table({"text": pa.array([], pa.string())})):
        pq.write_table(table, path)
        size = path.stat().st_size
        assert rows(path) == rows(path, 0, size // 2) == rows(path, size // 2, size, ["text"]) == []
    pq.write_table(pa.table({"other": [1, 2]}), path)
    assert rows(path, fields=["text", "a.b"]) == [{}, {}]
