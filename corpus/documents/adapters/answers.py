"""Questions or problems with their answers in words."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from corpus.base.config import Strict
from corpus.documents.adapters.templates import check_template, fill
from corpus.documents.fields import needed_text, paths, text_field, value_at
from corpus.documents.record import BadRecord, Record, TextOf

_CALCULATION = re.compile(r"<<[^<>]*>>")


class QuestionAnswerAdapter(Strict):
    """A question and its answer: a list of answers gives its first, and paths may descend (`responses.0.response`)."""

    shape: Literal["question_answer"] = "question_answer"
    question: str = "question"
    """Field with the question."""
    answer: str = "answer"
    """Field with the answer."""
    fallback: str | None = None
    """Field used when `answer` is absent or empty."""
    template: str = "Question: {question}\nAnswer: {answer}"
    """The text; {question} and {answer} are replaced, nothing else."""
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
            except BadRecord as bad:
                reason = reason if bad.reason == "missing_field" else bad.reason
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

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.question, self.answer, self.fallback)


class ProblemSolutionAdapter(Strict):
    """A problem and its worked solution, both required."""

    shape: Literal["problem_solution"] = "problem_solution"
    problem: str = "problem"
    """Field with the problem."""
    solution: str = "solution"
    """Field with the solution."""
    template: str = "{problem}\n\n{solution}"
    """The text; {problem} and {solution} are replaced, nothing else."""

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

    def needs(self) -> frozenset[str]:
        """Paths of the fields it reads."""
        return paths(self.problem, self.solution)


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
