"""What all adapters share: reading a value out of a record, and filling a template with record text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
TextOf = Callable[[Record], str]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class BadRecord(ValueError):
    """A record the adapter cannot turn into text; ``reason`` is the name it is counted under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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


def check_template(template: str, names: tuple[str, ...]) -> str:
    """``template`` itself when it mentions each of ``names`` and nothing else; raises ValueError otherwise."""
    used = set(_PLACEHOLDER.findall(template))
    known = " and ".join("{" + name + "}" for name in names)
    if unknown := sorted(used - set(names)):
        raise ValueError(f"template mentions {{{unknown[0]}}}; it may mention {known}")
    if missing := [name for name in names if name not in used]:
        raise ValueError(f"template never mentions {{{missing[0]}}}")
    return template


def fill(template: str) -> Callable[[dict[str, str]], str]:
    """A function that puts values into a template once; braces inside the values stay as they are."""
    # Odd positions of a split on one group are the placeholder names; record text is never looked at for them.
    parts = _PLACEHOLDER.split(template)

    def filled(values: dict[str, str]) -> str:
        return "".join(values[part] if i % 2 else part for i, part in enumerate(parts))

    return filled
