"""The text is one field of the record."""

from __future__ import annotations

from typing import Literal

from corpus.base.config import Strict
from corpus.documents.fields import paths, text_field
from corpus.documents.record import Record, TextOf


class FieldAdapter(Strict):
    """The text is one field of the record."""

    shape: Literal["field"] = "field"
    field: str = "text"
    """Path of the text: a key as it stands, else dots descend into objects."""

    def function(self) -> TextOf:
        """The record -> text function."""
        field = self.field

        def text_of(record: Record) -> str:
            value = record.get(field)
            return value if isinstance(value, str) else text_field(record, field)

        return text_of

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.field)
