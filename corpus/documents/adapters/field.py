"""The text is one field of the record."""

from __future__ import annotations

from typing import Literal

from corpus.base.config import Strict
from corpus.documents.fields import text_field, top_level
from corpus.documents.record import Record, TextOf


class FieldAdapter(Strict):
    """The text is one field of the record."""

    shape: Literal["field"] = "field"
    field: str = "text"

    def function(self) -> TextOf:
        """The record -> text function."""
        field = self.field

        def text_of(record: Record) -> str:
            value = record.get(field)
            return value if isinstance(value, str) else text_field(record, field)

        return text_of

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads; None means all of them."""
        return top_level(self.field)
