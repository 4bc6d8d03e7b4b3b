"""JSON lines: one record per line, from any byte range of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from corpus.acquire.ranges import Readable
from corpus.documents.compression import open_decompressed
from corpus.documents.record import INVALID_UTF8, MAX_RECORD_BYTES, BadRecord, Item
from corpus.documents.sniff import HEAD, REMOTE_HEAD, refuse_other_lines
from corpus.documents.units import WHOLE

BLOCK = 4 << 20


def _blocks(stream: BinaryIO, head: bytes, at_once: int) -> Iterator[bytes]:
    """What was read already, and then the rest of the file."""
    for at in range(0, len(head), BLOCK):
        yield head[at : at + BLOCK]
    while block := stream.read(at_once):
        yield block


def _lines(
    stream: BinaryIO, head: bytes, start: int, end: int, at_once: int = BLOCK
) -> Iterator[tuple[int, bytes | None]]:
    """(byte offset, line) for each line that starts in [start, end); None for a line beyond MAX_RECORD_BYTES.

    ``head`` is what was read of the file already.
    """
    offset = start
    if start:
        stream.seek(start - 1)
        offset -= 1
        head = b""
    carry = b""
    skipping = bool(start)  # the line in progress at `start` belongs to the range before
    too_large, too_large_bytes = False, 0
    for block in _blocks(stream, head, at_once):
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
    if too_large:
        yield offset, None
    elif carry and not skipping:
        yield offset, carry


def jsonl_records(path: Readable, name: str, start: int, end: int) -> Iterator[Item]:
    """The records whose line starts in [start, end)."""
    with open_decompressed(path, name) as stream:
        # From afar every byte of it is fetched beside the range asked for.
        look, at_once = (HEAD, BLOCK) if isinstance(path, Path) else (REMOTE_HEAD, REMOTE_HEAD)
        head = stream.read(look)
        refuse_other_lines(head, len(head) < look, name)
        for offset, line in _lines(stream, head, start, end, at_once):
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
        return INVALID_UTF8
    return "invalid_json"
