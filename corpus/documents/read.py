"""Reading the records of a unit: JSON lines, parquet rows, text files; whole, or a byte range of a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from corpus.acquire.ranges import Readable
from corpus.documents.compression import reading
from corpus.documents.jsonl import jsonl_records
from corpus.documents.parquet import parquet_records
from corpus.documents.record import Item
from corpus.documents.text import text_records


def read_piece(
    path: Readable,
    name: str,
    file_format: Literal["jsonl", "parquet", "text"],
    start: int,
    end: int,
    fields: Collection[str] | None,
) -> Iterator[Item]:
    """Yield the records of one piece in file order; ``fields`` are the paths that are looked at, None stands for all.

    A record that cannot be read comes as a BadRecord. A file that is cut off, damaged or of another format raises
    UserError naming it: what it should have held is unknown, so it can never be counted as read.
    """
    with reading(name):
        if file_format == "parquet":
            yield from parquet_records(path, name, start, end, fields)
        elif file_format == "text":
            yield from text_records(path, name)
        else:
            yield from jsonl_records(path, name, start, end)
