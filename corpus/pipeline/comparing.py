"""A comparison's own jobs: the look at a unit's documents, and the later stages that look at none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.cleaning.comparisons.droplists import UnitRef, save_ids
from corpus.cleaning.comparisons.keys import write_keys
from corpus.pipeline.job import Job, Purpose
from corpus.pipeline.tally import Tally
from corpus.pipeline.unit_step import Numbered, UnitStep, job_work, unit_work
from corpus.streams.plan import load_plan


class Collect(UnitStep):
    """The end of a comparison's own pass: keeps what the step compares documents by, instead of tokenising them."""

    type = "🧹 - COLLECTOR"
    name = "comparison"

    def __init__(self, jobs: Path, tally: Tally, step: int) -> None:
        super().__init__(jobs, tally)
        self.step = step

    def run(self, data: Iterator[Numbered], rank: int = 0, world_size: int = 1) -> None:
        """Consumes the pipeline."""
        plan, unit = self.job(rank)
        folder, ref = plan.comparison_folders[self.step], UnitRef(plan.source_name, unit.index)
        keys_of = plan.comparison(self.step)[1].keys()
        names: list[str] | None = [] if plan.keep_removed else None

        def rows() -> Iterator[tuple[int, bytes]]:
            for entry in data:
                self.tally.text_bytes += len(entry.document.text)
                self.tally.publish(self.jobs.parent / f"progress-{rank}.json")
                if names is not None:
                    names.extend([""] * (entry.ordinal - len(names)) + [entry.document.id])
                keys = keys_of(entry.document.text)
                if keys is not None:
                    yield entry.ordinal, keys

        with unit_work(self, plan, unit, rank):
            write_keys(folder, ref, rows())
            if names is not None:
                save_ids(folder, ref, names)


class Compare(UnitStep):
    """A job of a later stage of a comparison."""

    type = "🧹 - COMPARISON"
    name = "comparison"

    def __init__(self, jobs: Path, tally: Tally, purpose: Purpose) -> None:
        super().__init__(jobs, tally)
        self.purpose = purpose

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Does the job; reads no documents."""
        job = Job(*json.loads(self.jobs.read_bytes())[rank])
        plan = load_plan(Path(job.plan))
        comparison, step = plan.comparison(self.purpose.step)
        where = f"comparison for '{step.reason}', {self.purpose.stage} {job.unit}"
        with job_work(self, where, plan.data, rank):
            comparison.run(self.purpose.stage, job.unit)
