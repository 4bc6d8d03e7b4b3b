"""The value at a field path of a record."""

from __future__ import annotations

from typing import Any

from corpus.documents.record import BadRecord, Record


def value_at(record: Record, path: str) -> Any:
    """The value at ``path``: dots descend into objects, whole numbers into lists; raises BadRecord when absent."""
    value: Any = record
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise BadRecord("missing_field")
    return value


def text_field(record: Record, field: str) -> str:
    """The string at ``field`` (dots descend into objects); raises BadRecord when missing or not text."""
    value = value_at(record, field)
    if not isinstance(value, str):
        raise BadRecord("not_text")
    return value


def needed_text(record: Record, field: str, empty: str) -> str:
    """As :func:`text_field`, and raises BadRecord(``empty``) when there is nothing but white space."""
    value = text_field(record, field)
    if not value.strip():
        raise BadRecord(empty)
    return value


def top_level(*paths: str | None) -> list[str]:
    """The top-level field names of some paths, once each, in order."""
    return list(dict.fromkeys(path.split(".")[0] for path in paths if path))
