"""What the steps of a unit have in common: the unit, its tally, and what they pass on."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from corpus.base.errors import UserError
from corpus.base.files import full_disk, is_full
from corpus.documents.units import Unit
from corpus.pipeline.environment import take_environment
from corpus.pipeline.job import Job
from corpus.pipeline.marks import UnitMarks
from corpus.pipeline.tally import Tally
from corpus.streams.plan import StreamPlan, load_plan


class UnitStep(PipelineStep):
    """Base of our steps: knows the jobs file, from which datatrove's rank picks the unit."""

    def __init__(self, jobs: Path, tally: Tally) -> None:
        super().__init__()
        self.jobs = jobs
        self.tally = tally

    def job(self, rank: int) -> tuple[StreamPlan, Unit]:
        """The plan and unit of this rank."""
        job = Job(*json.loads(self.jobs.read_bytes())[rank])
        plan = load_plan(Path(job.plan))
        return plan, plan.units[job.unit]


class Numbered(NamedTuple):
    """A document and its place among the unit's readable records, by which comparisons know it."""

    ordinal: int
    document: Document


def unit_work(step: UnitStep, plan: StreamPlan, unit: Unit, rank: int) -> contextlib.AbstractContextManager[None]:
    """job_work on a unit."""
    return job_work(step, f"{plan.source_name}, unit {unit.index}", plan.data, rank)


@contextlib.contextmanager
def job_work(step: UnitStep, where: str, data: Path, rank: int) -> Iterator[None]:
    """Mark a job as in hand and then as done; leave a failure as a file for the parent, so that other jobs go on."""
    marks = UnitMarks(step.jobs.parent, rank)
    try:
        with marks:
            take_environment(step.jobs.parent)
            yield
            marks.done(step.tally.summary())
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as raised:  # a panic inside a tokeniser's Rust code is no Exception
        error: BaseException = full_disk(data) if is_full(raised) else raised
        report = {
            "where": where,
            "user": [error.what, error.where, error.fix] if isinstance(error, UserError) else None,
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
        (step.jobs.parent / f"failed-{rank}.json").write_text(json.dumps(report))
