"""Adapters: one small function per record shape, turning a record into training text.

An adapter's settings (the template included) are data in the catalogue or the recipe; they are part of a stream's key,
so a changed template makes a new stream. Text of a record is never looked at for placeholders.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from corpus.documents.adapters.base import BadRecord, Record, TextOf, text_field, value_at
from corpus.documents.adapters.shapes import (
    AlignedChoiceAdapter,
    ChatOutputAdapter,
    FieldAdapter,
    MessagesAdapter,
    MultipleChoiceAdapter,
    PassageQuestionAdapter,
    ProblemSolutionAdapter,
    QuestionAnswerAdapter,
    RecoveredQuestionAdapter,
)

Adapter = Annotated[
    FieldAdapter
    | ChatOutputAdapter
    | MessagesAdapter
    | QuestionAnswerAdapter
    | ProblemSolutionAdapter
    | RecoveredQuestionAdapter
    | MultipleChoiceAdapter
    | PassageQuestionAdapter
    | AlignedChoiceAdapter,
    Field(discriminator="shape"),
]

__all__ = [
    "Adapter",
    "AlignedChoiceAdapter",
    "BadRecord",
    "ChatOutputAdapter",
    "FieldAdapter",
    "MessagesAdapter",
    "MultipleChoiceAdapter",
    "PassageQuestionAdapter",
    "ProblemSolutionAdapter",
    "QuestionAnswerAdapter",
    "Record",
    "RecoveredQuestionAdapter",
    "TextOf",
    "text_field",
    "value_at",
]
