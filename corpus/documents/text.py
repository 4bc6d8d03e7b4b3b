"""Text files: one document each."""

from __future__ import annotations

from collections.abc import Iterator

from corpus.acquire.ranges import Readable
from corpus.documents.compression import open_decompressed
from corpus.documents.record import INVALID_UTF8, MAX_RECORD_BYTES, BadRecord, Item
from corpus.documents.sniff import HEAD, is_utf16, refuse_binary


def text_records(path: Readable, name: str) -> Iterator[Item]:
    """The one record of the file, its text."""
    with open_decompressed(path, name) as stream:
        data = stream.read(MAX_RECORD_BYTES + 1)
    refuse_binary(data[:HEAD], name)
    if len(data) > MAX_RECORD_BYTES:
        yield "0", BadRecord("too_large")
        return
    if is_utf16(data):
        # It may be valid UTF-8 too, full of zeros.
        yield "0", BadRecord(INVALID_UTF8)
        return
    try:
        yield "0", {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        yield "0", BadRecord(INVALID_UTF8)
