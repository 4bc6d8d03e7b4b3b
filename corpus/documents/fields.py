"""Field paths, with one meaning everywhere: a key as it stands comes first, else dots descend.

`a.b.c` is the key `a.b.c`; else what `b.c`, or `c` inside `b`, is in the key `a`; a longer key is tried before a
shorter one. Dots descend into objects (structs and maps of a parquet column among them), whole numbers into lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from corpus.documents.record import BadRecord, Record, Unreadable

_ABSENT = object()


def value_at(record: Record, path: str) -> Any:
    """The value at ``path``; raises BadRecord when there is none, or none that can be held."""
    value = _find(record, path)
    if value is _ABSENT:
        raise BadRecord("missing_field")
    if isinstance(value, Unreadable):
        raise BadRecord(value.reason)
    return value


def value_or_none(record: Record, path: str) -> Any:
    """The value at ``path``, an Unreadable where it cannot be held; None when there is none."""
    value = _find(record, path)
    return None if value is _ABSENT else value


def text_field(record: Record, path: str) -> str:
    """The string at ``path``; raises BadRecord when missing or not text."""
    value = value_at(record, path)
    if not isinstance(value, str):
        raise BadRecord("token_ids" if _are_ids(value) else "not_text")
    return value


def needed_text(record: Record, path: str, empty: str) -> str:
    """As :func:`text_field`, and raises BadRecord(``empty``) when there is nothing but white space."""
    value = text_field(record, path)
    if not value.strip():
        raise BadRecord(empty)
    return value


def paths(*fields: str | None) -> frozenset[str]:
    """Those of ``fields`` that are named."""
    return frozenset(field for field in fields if field)


def readings(path: str) -> Iterator[tuple[str, str]]:
    """(key, path inside its value) in the order in which ``path`` is read; the path is '' where the key is all."""
    yield path, ""
    cut = path.rfind(".")
    while cut >= 0:
        yield path[:cut], path[cut + 1 :]
        cut = path.rfind(".", 0, cut)


def top_level(record: Record, fields: Iterable[str]) -> Record:
    """The part of a record that ``fields`` may lie in; a field of which there is no part is None under its name."""
    kept: Record = {}
    for path in fields:
        keys = [key for key, _ in readings(path) if key in record] or [path]
        kept |= {key: record.get(key) for key in keys}
    return kept


def _find(value: Any, path: str) -> Any:
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # a map column
            value = dict(value)
        else:
            place, _, rest = path.partition(".")
            if not place.isdecimal() or int(place) >= len(value):
                return _ABSENT
            return _find(value[int(place)], rest) if rest else value[int(place)]
    if not isinstance(value, dict):
        return _ABSENT
    if path in value:
        return value[path]
    for key, rest in readings(path):
        if rest and key in value:
            found = _find(value[key], rest)
            if found is not _ABSENT:
                return found
    return _ABSENT


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value[:8])
