"""The cleaning steps a recipe can name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from corpus.cleaning.comparisons.steps import ExactDedupStep, MinhashStep
from corpus.cleaning.decontamination.step import DecontaminateStep
from corpus.cleaning.fields import LanguageStep, ScoreStep
from corpus.cleaning.quality import C4QualityStep, FineWebQualityStep, GopherQualityStep, GopherRepetitionStep
from corpus.cleaning.text import LengthStep, PiiStep, RegexStep, SpecialTokensStep

CleaningStep = Annotated[
    ScoreStep
    | LanguageStep
    | LengthStep
    | RegexStep
    | SpecialTokensStep
    | PiiStep
    | GopherQualityStep
    | GopherRepetitionStep
    | C4QualityStep
    | FineWebQualityStep
    | DecontaminateStep
    | ExactDedupStep
    | MinhashStep,
    Field(discriminator="step"),
]
"""One entry of a recipe's `cleaning` list."""
