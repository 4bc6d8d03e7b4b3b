"""What reading yields: a record, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
TextOf = Callable[[Record], str]


class BadRecord(ValueError):
    """A record the adapter cannot turn into text; ``reason`` is the name it is counted under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


INVALID_UTF8 = "invalid_utf8"
"""The reason of text that is none."""


@dataclass(frozen=True)
class Unreadable:
    """Stands in a record for a value that Python cannot hold: it costs itself, not the record."""

    reason: str
    """What a record is dropped under whose text it should have been."""


MAX_RECORD_BYTES = 64 << 20
"""A longer record is dropped under `too_large` without being held in memory.

One character beyond U+FFFF makes Python hold four bytes for each of a text: this keeps a worker under 1.5 GB.
"""


Item = tuple[str, Record | BadRecord]
"""(place inside the file, the record or why there is none)."""
