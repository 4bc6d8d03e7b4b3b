"""Comparisons (deduplication): a pass over all units, stages of jobs, and one drop list per unit for the main pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from corpus.base.files import fingerprint
from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.comparisons.keys import keys_file
from corpus.cleaning.step import ComparisonStep
from corpus.pipeline.job import COLLECT, Job, Purpose
from corpus.streams.plan import StreamPlan

ROWS_HERE = 1 << 21
"""Up to so many keys the later stages are done by the build itself: starting workers would take longer."""

RunJobs = Callable[[list[Job], Purpose], None]
"""Has workers do the jobs of a comparison's stage."""


def with_comparisons(plans: dict[str, StreamPlan]) -> dict[str, StreamPlan]:
    """The plans, each knowing what its comparisons compare it with and where their findings lie.

    Call it with the plans of the whole mixture, in its order: that order decides which of two equal documents stays.
    """
    for place, step in enumerate(next(iter(plans.values())).cleaning):
        if not isinstance(step, ComparisonStep):
            continue
        members = {name: plan for name, plan in plans.items() if (place, step) in plan.steps}
        keys = {name: (plan.source_name, len(plan.units), plan.key) for name, plan in members.items()}
        for name, plan in members.items():
            group = list(keys.values()) if step.scope == "recipe" else [keys[name]]
            folder = plan.data / ".build" / "comparisons" / f"{step.step}-{fingerprint([place, group])[:16]}"
            # Made anew rather than copied: a copy would keep the cached key of the plan without these.
            fields = {field: getattr(plan, field) for field in StreamPlan.model_fields}
            fields["comparison_folders"] = {**plan.comparison_folders, place: folder}
            fields["compared_streams"] = {**plan.compared_streams, place: group}
            plans[name] = StreamPlan(**fields)
    return plans


def run_comparisons(plans: dict[str, StreamPlan], saved: dict[str, str], run_jobs: RunJobs) -> None:
    """Make the drop lists that incomplete streams need. ``saved``: each plan's file."""
    for place, step in enumerate(next(iter(plans.values())).cleaning):
        if not isinstance(step, ComparisonStep):
            continue
        folders = {plan.comparison_folders[place]: name for name, plan in plans.items() if (place, step) in plan.steps}
        for folder, first in folders.items():
            together = {n: p for n, p in plans.items() if p.comparison_folders.get(place) == folder}
            if all(plan.is_complete() for plan in together.values()):
                continue
            comparison, _ = plans[first].comparison(place)
            if not comparison.collected:
                jobs = [
                    Job(saved[name], unit.index)
                    for name, member in together.items()
                    for unit in member.units
                    if not keys_file(folder, UnitRef(member.source_name, unit.index)).is_file()
                ]
                if jobs:
                    run_jobs(jobs, Purpose(place, COLLECT))
            while stage := comparison.next_stage():
                if comparison.rows <= ROWS_HERE:
                    for number in stage.jobs:
                        comparison.run(stage.name, number)
                else:
                    run_jobs([Job(saved[first], number) for number in stage.jobs], Purpose(place, stage.name))


def forget_comparisons(plans: dict[str, StreamPlan]) -> None:
    """Delete the findings that no incomplete stream needs any more."""
    needed = {
        folder for plan in plans.values() if not plan.is_complete() for folder in plan.comparison_folders.values()
    }
    for folder in {folder for plan in plans.values() for folder in plan.comparison_folders.values()} - needed:
        shutil.rmtree(folder, ignore_errors=True)
