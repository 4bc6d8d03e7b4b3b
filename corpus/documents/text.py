"""Text files: one document each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from corpus.documents.compression import open_decompressed
from corpus.documents.record import MAX_RECORD_BYTES, BadRecord, Item


def text_records(path: Path, name: str, start: int, end: int) -> Iterator[Item]:
    """The one record of the file, its text."""
    with open_decompressed(path, name) as stream:
        data = stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        yield "0", BadRecord("too_large")
        return
    try:
        yield "0", {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        yield "0", BadRecord("invalid_utf8")
