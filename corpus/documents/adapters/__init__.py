"""Adapters: one small function per record shape, turning a record into training text.

An adapter's settings (the template included) are data in the catalogue or the recipe; they are part of a stream's key,
so a changed template makes a new stream. Text of a record is never looked at for placeholders.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from corpus.documents.adapters.answers import (
    ProblemSolutionAdapter,
    QuestionAnswerAdapter,
    RecoveredQuestionAdapter,
)
from corpus.documents.adapters.choices import AlignedChoiceAdapter, MultipleChoiceAdapter, PassageQuestionAdapter
from corpus.documents.adapters.conversations import ChatOutputAdapter, MessagesAdapter
from corpus.documents.adapters.field import FieldAdapter

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
    "ChatOutputAdapter",
    "FieldAdapter",
    "MessagesAdapter",
    "MultipleChoiceAdapter",
    "PassageQuestionAdapter",
    "ProblemSolutionAdapter",
    "QuestionAnswerAdapter",
    "RecoveredQuestionAdapter",
]
