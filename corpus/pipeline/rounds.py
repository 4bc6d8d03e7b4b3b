"""From the plans of streams to complete streams: rounds of units, each stream held meanwhile and completed after."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from pathlib import Path

from corpus.acquire import Prefetcher
from corpus.base.errors import UserError
from corpus.cleaning.decontamination.coverage import check_coverage
from corpus.pipeline.attempts import attempt, clear_dead_attempts
from corpus.pipeline.barren import ENOUGH, Barren, spread_first
from corpus.pipeline.comparisons import forget_comparisons, run_comparisons
from corpus.pipeline.display import BuildDisplay, SourceTotals, say
from corpus.pipeline.job import Job, Purpose
from corpus.pipeline.options import Options
from corpus.pipeline.run import Progress, run_jobs
from corpus.recipe.model import Recipe
from corpus.records.stream import StreamRecord, load_stream
from corpus.streams.assemble import check_epochs
from corpus.streams.changes import tell_changes
from corpus.streams.finish import EmptyStream, TornUnits, complete_stream, unit_bytes
from corpus.streams.lock import stream_lock
from corpus.streams.made import finished_units, is_short, units_to_make
from corpus.streams.plan import StreamPlan


def make_streams(recipe: Recipe, plans: dict[str, StreamPlan], options: Options) -> dict[str, StreamRecord]:
    """Make the streams that are asked for (of --only, or all), in a store too where there is one; their records.

    Raises UserError when another build is making one of them, or the store may not hold one.
    """
    records: dict[str, StreamRecord] = {}
    wanted = {name: plan for name, plan in plans.items() if not options.only or name in options.only}
    if options.store:
        from corpus.streams.store import StorePath
        from corpus.streams.upload import check_store, upload_stream

        store = StorePath(options.store)
        closed = [name for name, plan in wanted.items() if not plan.source.redistributable]
        check_store(store, closed, options.private_store)
    with contextlib.ExitStack() as stack:
        for plan in plans.values():
            if not plan.is_complete():
                stack.enter_context(stream_lock(plan))
        for name, plan in wanted.items():
            if plan.is_complete() and recipe.mixture[name].max_epochs is not None:
                check_epochs(recipe, name, load_stream(plan.folder).samples, options.max_tokens, options.recipe)
        tell_changes(wanted, say)
        clear_dead_attempts(options.data)
        if options.keep_removed:
            _note_what_is_not_kept(wanted)
        make_units(recipe, plans, wanted, options)
        empty = []
        for name, plan in wanted.items():
            try:
                records[name] = _completed(recipe, plans, name, options)
            except EmptyStream as error:
                empty.append(error)
                continue
            check_epochs(recipe, name, records[name].samples, options.max_tokens, options.recipe)
            if options.store:
                upload_stream(plan.folder, plan.tokenizer_json.parent, plan.data, store, say)
        _refuse_empty(empty, len(wanted))
        forget_comparisons(plans)
    return records


def _note_what_is_not_kept(plans: dict[str, StreamPlan]) -> None:
    """Removed documents are kept while a unit is made: say where units are made already."""
    for name, plan in plans.items():
        made = finished_units(plan) if plan.steps else set()
        without = sum(not plan.removed_file(unit).is_file() for unit in plan.units if unit.index in made)
        if without:
            say(
                f"note: {without} of {len(made)} finished units of '{name}' were made without --keep-removed, so what "
                f"was removed there is not kept; delete {plan.folder} to make them again"
            )


def _refuse_empty(empty: list[EmptyStream], of: int) -> None:
    if len(empty) == 1:
        raise empty[0]
    if empty:
        raise UserError(
            f"{len(empty)} of {of} sources yield too little",
            fix=empty[0].fix,
            details=[f"{error.where} {error.what}" for error in empty],
        )


def _completed(recipe: Recipe, plans: dict[str, StreamPlan], name: str, options: Options) -> StreamRecord:
    """The record of a stream whose units were made; what lost its bytes since is made again, once."""
    plan = plans[name]
    if plan.is_complete():
        return load_stream(plan.folder)
    try:
        return complete_stream(plan)
    except TornUnits as torn:
        say(f"{torn.where}: {torn.what}")
        make_units(recipe, plans, {name: plan}, options)
        return load_stream(plan.folder) if plan.is_complete() else complete_stream(plan)


def make_units(recipe: Recipe, plans: dict[str, StreamPlan], wanted: dict[str, StreamPlan], options: Options) -> None:
    """Make all missing units of the wanted streams, over as many rounds as a token limit needs.

    Comparisons first look at all ``plans`` they compare.
    """
    check_coverage((s for plan in wanted.values() if not plan.is_complete() for _, s in plan.steps), say)
    if all(plan.is_complete() for plan in wanted.values()):
        return
    with attempt(options.data, recipe.name) as work:
        _make_units(recipe, plans, wanted, options, work)


def _make_units(
    recipe: Recipe, plans: dict[str, StreamPlan], wanted: dict[str, StreamPlan], options: Options, work: Path
) -> None:
    saved = {name: str(plan.save(options.data / ".build")) for name, plan in plans.items()}
    index_of = {path: name for name, path in saved.items()}
    passes = sorted({step for plan in plans.values() for step in plan.comparison_folders})
    sizes = {name: {f.name: f.size or plan.unit_bytes for f in plan.listing.files} for name, plan in plans.items()}

    def compare(jobs: list[Job], purpose: Purpose) -> None:
        if purpose.looks_at_documents:
            run(jobs, purpose)
            return
        name = f"{recipe.cleaning[purpose.step].step}: {purpose.stage}"
        say(f"{name}, {len(jobs)} jobs, {options.workers} workers")
        totals = {name: SourceTotals(len(jobs))}
        with BuildDisplay(totals) as display:
            show = functools.partial(_count_up, [(name, 1)] * len(jobs), totals, display)
            run_jobs(jobs, work, options.workers, show, purpose, options.cluster)

    def run(jobs: list[Job], purpose: Purpose | None = None) -> None:
        jobs = _in_order(jobs)
        owners = []
        for job in jobs:
            name = index_of[job.plan]
            owners.append((name, unit_bytes(plans[name].units[job.unit], sizes[name])))
        stored: Counter[str] = Counter()
        for name, size in owners:
            stored[name] += size
        totals = {name: SourceTotals(size) for name, size in stored.items()}
        what = "" if purpose is None else f" for {recipe.cleaning[purpose.step].step}"
        number = len(passes) if purpose is None else passes.index(purpose.step)
        what += f", pass {number + 1} of {len(passes) + 1}" if passes else ""
        place = f" on {options.cluster.kind}" if options.cluster else ""
        say(f"{len(jobs)} units of {len(totals)} sources{what}, {options.workers} workers{place}")
        # A sample fetches little of most files, each worker what it needs.
        ahead = [job for job in jobs if purpose is not None or plans[index_of[job.plan]].sample is None]
        order = [(index_of[job.plan], piece) for job in ahead for piece in _files_of(plans[index_of[job.plan]], job)]
        sources = {name: plan.source for name, plan in plans.items()}
        listings = {name: plan.listing for name, plan in plans.items()}
        config = next(iter(plans.values())).acquire
        with Prefetcher(sources, listings, order, config), BuildDisplay(totals) as display:
            units = Counter(name for name, _ in owners)
            whole = {n for n in units if units[n] == len(plans[n].units) and plans[n].sample is None}
            barren = Barren([name for name, _ in owners], whole, say)

            def show(progress: Progress) -> None:
                _count_up(owners, totals, display, progress)
                for name in barren.check(progress):
                    if purpose is None and totals[name].tokens:
                        # A document has two boundary ids at most.
                        most = (totals[name].tokens + 2 * totals[name].documents) // (recipe.seq_len + 1)
                        check_epochs(recipe, name, most, options.max_tokens, options.recipe)

            run_jobs(jobs, work, options.workers, show, purpose, options.cluster)

    if any(plan.comparison_folders for plan in wanted.values()) and not all(p.is_complete() for p in wanted.values()):
        run_comparisons(plans, saved, compare)
    while True:
        open_plans = {name: plan for name, plan in wanted.items() if not plan.is_complete()}
        for plan in open_plans.values():
            if is_short(plan):
                plan.raise_unit_cap()
        jobs = [Job(saved[name], unit.index) for name, plan in open_plans.items() for unit in units_to_make(plan)]
        if not jobs:
            return
        run(jobs)


def _in_order(jobs: list[Job]) -> list[Job]:
    """The first unit of every source, some more from all over each, then all others: what is wrong shows early."""
    by_plan: dict[str, list[Job]] = {}
    for job in jobs:
        by_plan.setdefault(job.plan, []).append(job)
    ordered = [[of[place] for place in spread_first(len(of))] for of in by_plan.values()]
    early = [job for tried in itertools.zip_longest(*(of[:ENOUGH] for of in ordered)) for job in tried if job]
    return early + [job for of in ordered for job in of[ENOUGH:]]


def _files_of(plan: StreamPlan, job: Job) -> list[str]:
    return [piece.file for piece in plan.units[job.unit].pieces]


def _count_up(
    owners: list[tuple[str, int]], totals: dict[str, SourceTotals], display: BuildDisplay, progress: Progress
) -> None:
    """Add up the units' counts by source (``owners``: each job's source and stored bytes) and show them."""
    for total in totals.values():
        total.done_bytes = total.documents = total.text_bytes = total.tokens = 0
    for index, (documents, text_bytes, tokens) in progress.counts.items():
        owner, size = owners[index]
        total = totals[owner]
        total.done_bytes += size if index in progress.done else min(text_bytes, size)
        total.documents += documents
        total.text_bytes += text_bytes
        total.tokens += tokens
    display.update()
