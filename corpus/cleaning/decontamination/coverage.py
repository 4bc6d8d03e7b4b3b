"""What decontamination can and cannot see of the evaluation sets it is asked to look for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from corpus.base.errors import UserError
from corpus.cleaning.decontamination.evalsets import WHERE
from corpus.cleaning.decontamination.step import DecontaminateStep
from corpus.cleaning.step import Step
from corpus.records.stream import EvaluationSet


def coverage(steps: Iterable[Step]) -> list[EvaluationSet]:
    """What decontamination by these steps can see, file by file; empty when none of them decontaminates."""
    return [seen for step in steps if isinstance(step, DecontaminateStep) for seen in step.sets()]


def check_coverage(steps: Iterable[Step], say: Callable[[str], None]) -> None:
    """Warn of a set most of which cannot be found; raises UserError for one of which nothing can."""
    for seen in {one.name: one for one in coverage(steps)}.values():
        if not seen.examples or not seen.undetectable:
            continue
        why = "their texts have too few words (see `shortest`)"
        if not seen.detectable:
            raise UserError(
                f"none of the {seen.examples:,} examples of {seen.name} can be found: {why}", where=WHERE,
                fix="Name the `fields` that hold their text, lower `shortest`, or leave the set out of `against`.",
            )  # fmt: skip
        if seen.undetectable > seen.detectable:
            say(
                f"warning: {seen.undetectable:,} of the {seen.examples:,} examples of {seen.name} cannot be found by "
                f"decontamination: {why}"
            )
