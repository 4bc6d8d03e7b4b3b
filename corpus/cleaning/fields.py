"""Steps that look at a field of the record: score, language."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from corpus.cleaning.step import DocumentStep, StepFunction

if TYPE_CHECKING:
    from datatrove.data import Document


class ScoreStep(DocumentStep):
    """Drop documents whose record scores below a minimum, or has no number there."""

    step: Literal["score"] = "score"
    field: str = "score"
    """Record field with the score (a number, or text that is one); dots descend into objects."""
    minimum: float
    """Lowest score kept."""

    def needs(self) -> frozenset[str]:
        """The field."""
        return frozenset({self.field})

    def function(self) -> StepFunction:
        """Reasons: score.missing, score.below_minimum."""
        return Score(self.field, self.minimum)


class LanguageStep(DocumentStep):
    """Keep the documents whose record names one of these languages."""

    step: Literal["language"] = "language"
    languages: tuple[str, ...] = Field(min_length=1)
    """Language codes to keep, spelled as the source spells them (upper and lower case are equal)."""
    field: str = "language"
    """Record field with the language code; dots descend into objects."""

    def needs(self) -> frozenset[str]:
        """The field."""
        return frozenset({self.field})

    def function(self) -> StepFunction:
        """Reasons: language.missing, language.other."""
        return Language(self.field, frozenset(code.casefold() for code in self.languages))


@dataclass(frozen=True)
class Score:
    """Drops documents that score below ``minimum`` or have no score."""

    field: str
    minimum: float

    def __call__(self, document: Document) -> str | None:
        """Reasons: score.missing, score.below_minimum."""
        value = metadata_field(document.metadata, self.field)
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return "score.missing"
        try:
            score = float(value)
        except (ValueError, OverflowError):
            return "score.missing"
        if math.isnan(score):
            return "score.missing"
        return None if score >= self.minimum else "score.below_minimum"


@dataclass(frozen=True)
class Language:
    """Keeps documents labelled with one of ``languages`` (case-folded codes)."""

    field: str
    languages: frozenset[str]

    def __call__(self, document: Document) -> str | None:
        """Reasons: language.missing, language.other."""
        value = metadata_field(document.metadata, self.field)
        if not isinstance(value, str) or not value:
            return "language.missing"
        return None if value.casefold() in self.languages else "language.other"


def metadata_field(metadata: dict[str, Any], field: str) -> Any:
    """The value at ``field``: a key as it stands, else dots descend into objects; None when there is none."""
    if field in metadata:
        return metadata[field]
    value: Any = metadata
    for part in field.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value
