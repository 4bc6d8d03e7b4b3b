"""Reading evaluation sets for decontamination: each example's name and text."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from corpus.acquire.local import refuse_broken_link
from corpus.base.errors import UserError
from corpus.documents.compression import COMPRESSED
from corpus.documents.fields import value_or_none
from corpus.documents.read import read_piece
from corpus.documents.record import INVALID_UTF8, BadRecord, Unreadable
from corpus.documents.units import WHOLE

NOT_TEXT = re.compile(
    r"(?i:(.*[_-])?(id|ids|idx|index|ind|uuid|guid|hash|label|labels|url|urls|uri|link))"
    r"|.*[a-z](Id|ID|Ids|IDs|Idx|Index|Label|Labels|Url|URL)|(?i:qid|answer_?key|gold|split|split_type)"
)
"""Names of fields that identify or label an example."""
WHERE = "cleaning step 'decontaminate'"


def find_files(against: Sequence[str]) -> list[Path]:
    """The files that paths and globs name, each once, in order of name; raises UserError for one that names nothing."""
    found: set[Path] = set()
    for entry in against:
        matches = (
            [Path(entry)] if Path(entry).is_file() else [Path(match) for match in glob.glob(entry, recursive=True)]
        )
        files = [path for path in matches if path.is_file()]
        for path in matches:
            refuse_broken_link(path, str(path), WHERE)
        if not files:
            raise UserError(f"no file at '{entry}'", where=WHERE, fix="Paths in `against` are relative to the recipe.")
        found.update(files)
    # By name first: the order then is the same in whatever folder a build finds them.
    return sorted(found, key=lambda path: (path.name, path))


def read_examples(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, texts) of each example: one per JSON line, row or list element; a .txt file or a JSON object is one.

    The name is <file name>:<number of the record, from 1>. The texts are every string and number at ``fields``; when
    that is empty, every string but those that are ids, labels or addresses by name, or by being one word of ASCII.
    Raises UserError for a file that cannot be read or lacks the fields.
    """
    described = False
    for number, record in enumerate(_records(path), 1):
        try:
            if isinstance(record, BadRecord):
                raise record
            if fields and isinstance(record, dict):
                values = [value_or_none(record, field) for field in fields]
                described = described or any(value is not None for value in values)
                texts = [text for value in values for text in _texts(value)]
            else:
                texts, described = list(_prose(record)), True
        except BadRecord as bad:
            raise UserError(f"record {number} cannot be read ({bad.reason})", where=str(path)) from None
        yield f"{path.name}:{number}", texts
    if not described:
        raise UserError(f"no record has a field {' or '.join(fields) or '(it is empty)'}", where=str(path))


def _records(path: Path) -> Iterator[Any]:
    suffixes = [suffix for suffix in path.suffixes if suffix not in COMPRESSED]
    ending = suffixes[-1] if suffixes else ""
    if ending == ".jsonl":
        yield from (record for _, record in read_piece(path, path.name, "jsonl", 0, WHOLE, None))
    elif ending == ".parquet":
        yield from (record for _, record in read_piece(path, path.name, "parquet", 0, WHOLE, None))
    elif ending in (".txt", ".json"):
        for _, whole in read_piece(path, path.name, "text", 0, WHOLE, None):
            if ending == ".txt" or isinstance(whole, BadRecord):
                yield whole
                continue
            try:
                data = orjson.loads(whole["text"])
            except orjson.JSONDecodeError as error:
                raise UserError(f"not valid JSON: {error}", where=str(path)) from None
            yield from data if isinstance(data, list) else [data]
    else:
        raise UserError(
            f"'{ending or path.name}' is no format evaluation sets are read from", where=str(path),
            fix="Use .jsonl, .json, .parquet or .txt.",
        )  # fmt: skip


def _texts(value: Any) -> Iterator[str]:
    """Strings and numbers inside a JSON value, in order; raises BadRecord for text that cannot be read."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Unreadable) and value.reason == INVALID_UTF8:
        raise BadRecord(value.reason)


def _prose(value: Any) -> Iterator[str]:
    """Strings inside a JSON value that are text to read, in order."""
    if isinstance(value, str):
        if not value.isascii() or len(value.split()) > 1:
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _prose(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not NOT_TEXT.fullmatch(name):
                yield from _prose(item)
    elif isinstance(value, Unreadable) and value.reason == INVALID_UTF8:
        raise BadRecord(value.reason)
