"""Questions whose answer is one of several given: a choice, or yes and no."""

from __future__ import annotations

import string
from typing import Literal

from pydantic import field_validator

from corpus.base.config import Strict
from corpus.documents.adapters.templates import check_template, fill
from corpus.documents.fields import needed_text, paths, text_field, value_at
from corpus.documents.record import BadRecord, Record, TextOf


class MultipleChoiceAdapter(Strict):
    """A question, its choices, and the label of the right one; the text has the right choice only."""

    shape: Literal["multiple_choice"] = "multiple_choice"
    question: str = "question"
    """Field with the question."""
    texts: str = "choices.text"
    """List of the choices' texts."""
    labels: str = "choices.label"
    """List of the choices' labels (A, B, ... or 1, 2, ...)."""
    key: str = "answerKey"
    """Label of the right choice; A and 1 stand for the same choice when the labels are of the other kind."""
    template: str = "Question: {question}\nAnswer: {answer}"
    """The text; {question} and {answer} are replaced, nothing else."""

    @field_validator("template")
    @classmethod
    def _known_names(cls, value: str) -> str:
        return check_template(value, ("question", "answer"))

    def function(self) -> TextOf:
        """The record -> text function."""
        filled = fill(self.template)

        def text_of(record: Record) -> str:
            question = needed_text(record, self.question, "empty_question")
            texts, labels = value_at(record, self.texts), value_at(record, self.labels)
            if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
                raise BadRecord("bad_choices")
            place = _place(text_field(record, self.key).strip(), labels)
            if place is None:
                raise BadRecord("unknown_answer_key")
            answer = texts[place]
            if not isinstance(answer, str):
                raise BadRecord("not_text")
            if not answer.strip():
                raise BadRecord("empty_answer")
            return filled({"question": question, "answer": answer})

        return text_of

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.question, self.texts, self.labels, self.key)


def _place(key: str, labels: list[object]) -> int | None:
    """Position of ``key`` among the labels, reading 1 as A and A as 1 when only the other kind is listed."""
    if key in labels:
        return labels.index(key)
    if key.isdecimal() and len(key) <= 2 and 1 <= int(key) <= 26:
        other = string.ascii_uppercase[int(key) - 1]
    elif len(key) == 1 and key in string.ascii_uppercase:
        other = str(string.ascii_uppercase.index(key) + 1)
    else:
        return None
    return labels.index(other) if other in labels else None


class PassageQuestionAdapter(Strict):
    """A passage, a yes/no question about it, and a boolean answer."""

    shape: Literal["passage_question"] = "passage_question"
    passage: str = "passage"
    """Field with the passage."""
    question: str = "question"
    """Field with the question."""
    answer: str = "answer"
    """Field with true or false."""
    yes: str = "Yes"
    """What true is written as."""
    no: str = "No"
    """What false is written as."""
    template: str = "{passage}\nQuestion: {question}?\nAnswer: {answer}"
    """The text; {passage}, {question} and {answer} are replaced, nothing else."""

    @field_validator("template")
    @classmethod
    def _known_names(cls, value: str) -> str:
        return check_template(value, ("passage", "question", "answer"))

    def function(self) -> TextOf:
        """The record -> text function."""
        filled = fill(self.template)

        def text_of(record: Record) -> str:
            passage = needed_text(record, self.passage, "empty_passage")
            question = needed_text(record, self.question, "empty_question")
            answer = value_at(record, self.answer)
            if not isinstance(answer, bool):
                raise BadRecord("not_a_boolean")
            return filled({"passage": passage, "question": question, "answer": self.yes if answer else self.no})

        return text_of

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.passage, self.question, self.answer)


class AlignedChoiceAdapter(Strict):
    """A question, one field per option, and the 0-based number of the right one (joined in by `prepare`)."""

    shape: Literal["aligned_choice"] = "aligned_choice"
    question: str = "goal"
    """Field with the question."""
    options: list[str] = ["sol1", "sol2"]
    """Fields with the choices, in the order of the labels."""
    label: str = "label"
    """Field with the number of the right choice, from 0."""
    template: str = "Question: {question}\nAnswer: {answer}"
    """The text; {question} and {answer} are replaced, nothing else."""

    @field_validator("template")
    @classmethod
    def _known_names(cls, value: str) -> str:
        return check_template(value, ("question", "answer"))

    def function(self) -> TextOf:
        """The record -> text function."""
        filled = fill(self.template)

        def text_of(record: Record) -> str:
            question = needed_text(record, self.question, "empty_question")
            label = str(value_at(record, self.label)).strip()
            # A number of thousands of digits is refused by int().
            if not label.isdecimal() or len(label) > 9 or int(label) >= len(self.options):
                raise BadRecord("unknown_answer_key")
            return filled(
                {"question": question, "answer": needed_text(record, self.options[int(label)], "empty_answer")}
            )

        return text_of

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.question, *self.options, self.label)
