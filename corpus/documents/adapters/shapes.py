"""The record shapes of the catalogue, one class each."""

from __future__ import annotations

import re
import string
from typing import Literal

from pydantic import field_validator

from corpus.base.config import Strict
from corpus.documents.adapters.base import (
    BadRecord,
    Record,
    TextOf,
    check_template,
    fill,
    needed_text,
    text_field,
    top_level,
    value_at,
)

_CALCULATION = re.compile(r"<<[^<>]*>>")


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


class _Turns(Strict):
    """How a conversation is written down as plain text."""

    turn: str = "{role}: {content}"
    """One message; {role} is the name that `roles` gives it."""
    roles: dict[str, str] = {"system": "System", "user": "User", "assistant": "Assistant"}
    """Role in the record -> name in the text; a record with another role is dropped as unknown_role."""
    separator: str = "\n\n"
    """Between two messages."""

    @field_validator("turn")
    @classmethod
    def _known_names(cls, value: str) -> str:
        return check_template(value, ("role", "content"))

    def _write(self, messages: object) -> str:
        if not isinstance(messages, list) or not messages:
            raise BadRecord("no_messages")
        turn = fill(self.turn)
        turns = []
        for message in messages:
            if not isinstance(message, dict):
                raise BadRecord("not_a_message")
            role = self.roles.get(text_field(message, "role"))
            if role is None:
                raise BadRecord("unknown_role")
            turns.append(turn({"role": role, "content": text_field(message, "content")}))
        return self.separator.join(turns)


class MessagesAdapter(_Turns):
    """A list of {role, content} messages holding the whole conversation."""

    shape: Literal["messages"] = "messages"
    messages: str = "messages"

    def function(self) -> TextOf:
        """The record -> text function."""
        return lambda record: self._write(value_at(record, self.messages))

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads."""
        return top_level(self.messages)


class ChatOutputAdapter(_Turns):
    """A list of {role, content} messages, and the assistant's answer to them in a field of its own."""

    shape: Literal["chat_output"] = "chat_output"
    input: str = "input"
    output: str = "output"

    def function(self) -> TextOf:
        """The record -> text function."""

        def text_of(record: Record) -> str:
            messages = value_at(record, self.input)
            if not isinstance(messages, list) or not messages:
                raise BadRecord("no_messages")
            output = needed_text(record, self.output, "empty_answer")
            return self._write([*messages, {"role": "assistant", "content": output}])

        return text_of

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads."""
        return top_level(self.input, self.output)


class QuestionAnswerAdapter(Strict):
    """A question and its answer: a list of answers gives its first, and paths may descend (`responses.0.response`)."""

    shape: Literal["question_answer"] = "question_answer"
    question: str = "question"
    answer: str = "answer"
    fallback: str | None = None
    """Field used when `answer` is absent or empty."""
    template: str = "Question: {question}\nAnswer: {answer}"
    drop_calculations: bool = False
    """Remove GSM8K's <<2*3=6>> calculator marks from the answer."""

    @field_validator("template")
    @classmethod
    def _known_names(cls, value: str) -> str:
        return check_template(value, ("question", "answer"))

    def _answer(self, record: Record) -> str:
        reason = "missing_field"
        for field in (self.answer, self.fallback):
            if field is None:
                continue
            try:
                value = value_at(record, field)
            except BadRecord:
                continue
            if isinstance(value, list):
                value = value[0] if value else ""
            if value is not None and not isinstance(value, str):
                reason = "not_text"
            elif value and value.strip():
                return value
            else:
                reason = "empty_answer"
        raise BadRecord(reason)

    def function(self) -> TextOf:
        """The record -> text function."""
        filled = fill(self.template)

        def text_of(record: Record) -> str:
            question = needed_text(record, self.question, "empty_question")
            answer = self._answer(record)
            if self.drop_calculations:
                answer = _CALCULATION.sub("", answer)
            return filled({"question": question, "answer": answer})

        return text_of

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads."""
        return top_level(self.question, self.answer, self.fallback)


class ProblemSolutionAdapter(Strict):
    """A problem and its worked solution, both required."""

    shape: Literal["problem_solution"] = "problem_solution"
    problem: str = "problem"
    solution: str = "solution"
    template: str = "{problem}\n\n{solution}"

    @field_validator("template")
    @classmethod
    def _known_names(cls, value: str) -> str:
        return check_template(value, ("problem", "solution"))

    def function(self) -> TextOf:
        """The record -> text function."""
        filled = fill(self.template)

        def text_of(record: Record) -> str:
            problem = needed_text(record, self.problem, "empty_question")
            return filled({"problem": problem, "solution": needed_text(record, self.solution, "empty_answer")})

        return text_of

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads."""
        return top_level(self.problem, self.solution)


class RecoveredQuestionAdapter(ProblemSolutionAdapter):
    """A problem and solution whose problem was joined in by `prepare`; one that was not found is a bad record."""

    shape: Literal["recovered_question"] = "recovered_question"  # type: ignore[assignment]
    placeholder: str = "-"
    """What upstream writes where the problem text is withheld."""

    def function(self) -> TextOf:
        """The record -> text function."""
        joined = super().function()

        def text_of(record: Record) -> str:
            if text_field(record, self.problem).strip() == self.placeholder:
                raise BadRecord("question_not_recovered")
            return joined(record)

        return text_of


class MultipleChoiceAdapter(Strict):
    """A question, its choices, and the label of the right one; the text has the right choice only."""

    shape: Literal["multiple_choice"] = "multiple_choice"
    question: str = "question"
    texts: str = "choices.text"
    """List of the choices' texts."""
    labels: str = "choices.label"
    """List of the choices' labels (A, B, ... or 1, 2, ...)."""
    key: str = "answerKey"
    """Label of the right choice; A and 1 stand for the same choice when the labels are of the other kind."""
    template: str = "Question: {question}\nAnswer: {answer}"

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

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads."""
        return top_level(self.question, self.texts, self.labels, self.key)


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
    question: str = "question"
    answer: str = "answer"
    yes: str = "Yes"
    no: str = "No"
    template: str = "{passage}\nQuestion: {question}?\nAnswer: {answer}"

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

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads."""
        return top_level(self.passage, self.question, self.answer)


class AlignedChoiceAdapter(Strict):
    """A question, one field per option, and the 0-based number of the right one (joined in by `prepare`)."""

    shape: Literal["aligned_choice"] = "aligned_choice"
    question: str = "goal"
    options: list[str] = ["sol1", "sol2"]
    label: str = "label"
    template: str = "Question: {question}\nAnswer: {answer}"

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

    def columns(self) -> list[str] | None:
        """Top-level fields the adapter reads."""
        return top_level(self.question, *self.options, self.label)
