"""Reading records: byte ranges meet exactly, hostile bytes become counted drops or a named file, never a traceback."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import corpus.documents.jsonl as jsonl
from corpus.base.errors import UserError
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.documents.units import WHOLE


def texts(path: Path, start: int = 0, end: int = WHOLE, file_format: str = "jsonl") -> list[str]:
    """Texts of the good records, reasons of the bad ones."""
    return [
        f"!{record.reason}" if isinstance(record, BadRecord) else record["text"]
        for _, record in read_piece(path, path.name, file_format, start, end, None)
    ]


@given(
    st.lists(st.text(alphabet='ab\u00e9\U0001f600\\" ', max_size=20), min_size=1, max_size=25),
    st.lists(st.integers(0, 600), max_size=6),
    st.booleans(),
    st.integers(1, 64),
)
def test_byte_ranges_read_each_line_once(lines: list[str], cuts: list[int], newline: bool, block: int) -> None:
    data = "\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in lines).encode() + b"\n" * newline
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_bytes(data)
        bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        before = jsonl.BLOCK
        jsonl.BLOCK = block
        try:
            pieces = [texts(path, low, high) for low, high in zip(bounds, bounds[1:], strict=False)]
        finally:
            jsonl.BLOCK = before
    assert [text for piece in pieces for text in piece] == lines


def test_each_hostile_line_is_dropped_under_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(
        b'{"text": "good"}\n'
        b"\n"
        b'{"text": "cut of\n'
        b'{"text": "\xff\xfe"}\n'
        b'{"text": "\\ud800"}\n'
        b'["a", "list"]\n'
        b'{"text": "nul \\u0000 stays"}\n' + b"[" * 100_000 + b'\n{"text": "last"}'
    )
    got = texts(path)
    assert got[0] == "good" and got[-1] == "last" and "nul \0 stays" in got
    assert sorted(t for t in got if t.startswith("!")) == [
        "!invalid_json", "!invalid_json", "!invalid_json", "!invalid_utf8", "!not_an_object",
    ]  # fmt: skip


def test_a_line_beyond_the_limit_is_dropped_and_its_neighbours_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(jsonl, "BLOCK", 300)
    path = tmp_path / "long.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "x" * 5000 + '"}\n{"text": "b"}\n')
    assert texts(path) == ["a", "!too_large", "b"]
    size = path.stat().st_size
    assert texts(path, 0, 2000) + texts(path, 2000, size) == ["a", "!too_large", "b"]
    path.write_text('{"text": "a"}\n{"text": "' + "x" * 5000 + '"}')
    assert texts(path) == ["a", "!too_large"]


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".gz", gzip.compress),
        (".zst", zstandard.ZstdCompressor().compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
    ],
)
def test_compressed_files_and_cut_off_ones(tmp_path: Path, ending: str, pack: object) -> None:
    lines = [f"line {n} " + "y" * (n % 50) for n in range(3000)]
    whole = pack("".join(json.dumps({"text": line}) + "\n" for line in lines).encode())  # type: ignore[operator]
    path = tmp_path / f"x.jsonl{ending}"
    path.write_bytes(whole + whole)  # two members or frames end to end are one valid file
    assert texts(path) == lines + lines
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"x.jsonl{ending}.*cut off or damaged"):
        texts(path)


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert texts(path) == []


def test_text_files_are_one_document_each(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("a\nb\n", encoding="utf-8")
    assert texts(path, file_format="text") == ["a\nb\n"]
    path.write_bytes(b"\xff")
    assert texts(path, file_format="text") == ["!invalid_utf8"]


def test_parquet_row_groups_fall_into_exactly_one_range(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [f"row {n} " + "z" * (n % 97) for n in range(1000)]
    pq.write_table(pa.table({"text": rows, "other": list(range(1000))}), path, row_group_size=64)
    size = path.stat().st_size
    cuts = [size * k // 7 for k in range(8)]
    pieces = [texts(path, low, high, "parquet") for low, high in zip(cuts, cuts[1:], strict=False)]
    assert [text for piece in pieces for text in piece] == rows
    assert sum(bool(piece) for piece in pieces) > 3
    only = [record for _, record in read_piece(path, "x.parquet", "parquet", 0, WHOLE, ["text", "absent"])]
    assert only[0] == {"text": rows[0]}


def test_a_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1 this is not a parquet file PAR1")
    with pytest.raises(UserError, match=r"bad\.parquet"):
        texts(path, file_format="parquet")
