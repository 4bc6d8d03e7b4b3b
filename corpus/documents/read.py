"""Reading the records of a unit: JSON lines, parquet rows, text files; whole, or a byte range of a file."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from corpus.base.errors import UserError
from corpus.documents.compression import DamagedFile
from corpus.documents.jsonl import jsonl_records
from corpus.documents.parquet import parquet_records
from corpus.documents.record import Item
from corpus.documents.text import text_records


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
    readers = {"jsonl": jsonl_records, "text": text_records}
    try:
        if file_format == "parquet":
            yield from parquet_records(path, start, end, columns)
        else:
            yield from readers[file_format](path, name, start, end)
    except (DamagedFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        # gzip and bz2 tell of damaged data by an OSError of their own, without the system's number.
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot be read: {error.strerror}", where=name) from None
        raise UserError(
            f"the file is cut off or damaged ({error or type(error).__name__})",
            where=name,
            fix="Delete the downloaded copy and run the same command again; if that fails too, the source is damaged.",
        ) from None
