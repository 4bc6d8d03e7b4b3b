"""Comparisons (deduplication): a pass over all units, the comparison, and one drop list per unit for the main pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from corpus.base.files import fingerprint, write_json
from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.comparisons.exact import find_duplicates, partitions_for, write_drop_lists
from corpus.cleaning.comparisons.steps import ExactDedupStep, MinhashStep
from corpus.cleaning.steps import CleaningStep
from corpus.pipeline.job import Job
from corpus.streams.plan import StreamPlan

DONE_FILE = "done.json"

RunUnits = Callable[[list[Job], int], None]
"""Runs the collecting pass of one comparison over jobs."""


def with_comparisons(plans: dict[str, StreamPlan]) -> dict[str, StreamPlan]:
    """The plans, each knowing what its comparisons compare it with and where their findings lie.

    Call it with the plans of the whole mixture, in its order: that order decides which of two equal documents stays.
    """
    for place, step in enumerate(next(iter(plans.values())).cleaning):
        if not step.compares:
            continue
        members = {name: plan for name, plan in plans.items() if (place, step) in plan.steps}
        keys = {name: (plan.source_name, len(plan.units), plan.key) for name, plan in members.items()}
        for name, plan in members.items():
            group = list(keys.values()) if _across(step) else [keys[name]]
            folder = plan.data / ".build" / "corpus" / f"{step.step}-{fingerprint([place, group])[:16]}"
            # Made anew rather than copied: a copy would keep the cached key of the plan without these.
            fields = {field: getattr(plan, field) for field in StreamPlan.model_fields}
            fields["comparison_folders"] = {**plan.comparison_folders, place: folder}
            fields["compared_streams"] = {**plan.compared_streams, place: group}
            plans[name] = StreamPlan(**fields)
    return plans


def run_comparisons(plans: dict[str, StreamPlan], saved: dict[str, str], run_units: RunUnits) -> None:
    """Make the drop lists that incomplete streams need. ``saved``: each plan's file."""
    for place, step in enumerate(next(iter(plans.values())).cleaning):
        folders = {plan.comparison_folders[place]: plan for plan in plans.values() if place in plan.comparison_folders}
        for folder, plan in folders.items():
            together = {n: p for n, p in plans.items() if p.comparison_folders.get(place) == folder}
            if (folder / DONE_FILE).is_file() or all(p.is_complete() for p in together.values()):
                continue
            ending = "ordinals.npy" if isinstance(step, MinhashStep) else "hash.npy"
            jobs = [
                Job(saved[name], unit.index)
                for name, member in together.items()
                for unit in member.units
                if not UnitRef(member.source_name, unit.index).file(folder, ending).is_file()
            ]
            if jobs:
                run_units(jobs, place)
            _compare(folder, plan.compared_units(place), step)


def _across(step: CleaningStep) -> bool:
    return isinstance(step, ExactDedupStep | MinhashStep) and step.scope == "recipe"


def _compare(folder: Path, units: list[UnitRef], step: CleaningStep) -> None:
    if isinstance(step, MinhashStep):
        from corpus.cleaning.comparisons.minhash import find_pairs, write_near_drop_lists

        for bucket in range(step.buckets):
            find_pairs(folder, units, step, bucket)
        dropped = write_near_drop_lists(folder, units, step)
    else:
        partitions = partitions_for(folder, units)
        for partition in range(partitions):
            find_duplicates(folder, units, partition, partitions)
        dropped = write_drop_lists(folder, units, partitions)
    write_json(folder / DONE_FILE, {"step": step.step, "units": len(units), "dropped": dropped})
