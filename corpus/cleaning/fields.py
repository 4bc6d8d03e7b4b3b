"""Steps that look at a field of the record: score, language."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from corpus.cleaning.step import DocumentStep, StepFunction
from corpus.documents.fields import value_or_none

if TYPE_CHECKING:
    from datatrove.data import Document


class ScoreStep(DocumentStep):
    """Drop documents whose record scores below a minimum, or has no number there."""

    step: Literal["score"] = "score"
    field: str = "score"
    """Record field with the score (a number, or text that is one); a key as it stands, else dots descend."""
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
    """Record field with the language code; a key as it stands, else dots descend."""

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
        value = value_or_none(document.metadata, self.field)
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
        value = value_or_none(document.metadata, self.field)
        if not isinstance(value, str) or not value:
            return "language.missing"
        return None if value.casefold() in self.languages else "language.other"
