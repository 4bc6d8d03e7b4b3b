"""`python -m corpus.build RECIPE`: make the streams of a recipe's mix, and the manifest that accounts for them."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, cast

from corpus.base.errors import UserError, command, nearest

if TYPE_CHECKING:
    from corpus.cleaning.steps import CleaningStep
    from corpus.pipeline.cluster_options import Cluster
    from corpus.pipeline.display import BuildDisplay, SourceTotals
    from corpus.pipeline.job import Job
    from corpus.pipeline.run import Progress
    from corpus.recipe.model import Recipe
    from corpus.records.manifest import Manifest
    from corpus.records.stream import StreamRecord, Tokenizer
    from corpus.streams.plan import StreamPlan


@dataclass(frozen=True)
class Options:
    """The command line of a build."""

    recipe: Path
    out: Path
    """The data folder; for a build into a store, the work folder its streams are made in."""
    workers: int
    max_tokens: int | None
    only: list[str]
    engine: str | None
    dry_run: bool
    mirror: Path | None
    cache_limit: int | None
    keep_downloads: bool
    stand_ins: bool
    keep_removed: bool
    offline: bool
    cluster: Cluster | None = None
    """Where the units are made; None is this machine."""
    store: str | None = None
    """s3://bucket/prefix that the finished build is uploaded to."""
    private_store: bool = False


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        options = parse_arguments(argv)
        try:
            build(options)
        except OSError as error:
            from corpus.base.files import full_disk, is_full

            if is_full(error):
                raise full_disk(options.out) from None
            raise


def parse_arguments(argv: list[str] | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m corpus.build",
        description="Turn a recipe's documented mix into tokenised MDS streams and a token-count manifest. "
        "A build that was stopped goes on where it was when the same command is run again.",
    )
    parser.add_argument("recipe", type=Path, help="recipe file, such as recipes/sample.yaml")
    parser.add_argument("--out", default="data", help="data folder, or s3://bucket/prefix (default: data)")
    parser.add_argument("--workers", type=int, help="units worked on at once (default: one per core of this machine)")
    parser.add_argument(
        "--max-tokens", type=_count, metavar="N", help="scaled-down build: a phase of N tokens, same mix"
    )
    parser.add_argument("--only", action="append", default=[], metavar="SOURCE", help="build only this mixture entry")
    parser.add_argument("--engine", choices=["gigatoken", "tokenizers"], help="force a tokeniser engine")
    parser.add_argument("--mirror", type=Path, metavar="DIR", help="read downloads from a local mirror of the hub")
    parser.add_argument("--offline", action="store_true", help="use only what was listed and downloaded before")
    parser.add_argument("--cache-limit", type=_count, metavar="BYTES", help="most bytes of downloads kept at once")
    parser.add_argument("--delete-downloads", action="store_true", help="delete each download once it is processed")
    parser.add_argument("--stand-ins", action="store_true", help="use ungated stand-ins for gated sources")
    parser.add_argument("--keep-removed", action="store_true", help="keep what cleaning removes, under OUT/removed")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be built, and stop (still fetches what planning needs)"
    )
    beyond = parser.add_argument_group("beyond one machine")
    beyond.add_argument(
        "--executor", choices=["local", "slurm", "ray"], default="local", help="where units are made (default: local)"
    )
    beyond.add_argument(
        "--executor-options", type=Path, metavar="FILE", help="YAML: partition, time, address, cpus_per_task ..."
    )
    beyond.add_argument("--work", type=Path, metavar="DIR", help="with --out s3://: where streams are made before")
    beyond.add_argument(
        "--private-store", action="store_true",
        help="with --out s3://: you vouch that a store whose access cannot be checked is private",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise UserError("must be at least 1", where="--workers")
    if args.max_tokens is not None and args.max_tokens < 1:
        raise UserError("must be positive", where="--max-tokens")
    store, out = _store_and_folder(args.out, args.work)
    cluster = None
    if args.executor != "local" or args.executor_options:
        from corpus.pipeline.cluster_options import cluster_options

        cluster = cluster_options(args.executor, args.executor_options)
    workers = args.workers or (cluster.workers if cluster else os.cpu_count() or 1)
    return Options(
        args.recipe, out, workers, args.max_tokens, args.only, args.engine, args.dry_run,
        args.mirror, args.cache_limit, not args.delete_downloads, args.stand_ins,
        args.keep_removed,
        args.offline, cluster, store, args.private_store,
    )  # fmt: skip


def _store_and_folder(out: str, work: Path | None) -> tuple[str | None, Path]:
    """(the store to upload to or None, the folder to build in) of ``--out`` and ``--work``."""
    if not out.startswith("s3://"):
        if work is not None:
            raise UserError("is for --out s3://...", where="--work", fix="A local build is made in --out itself.")
        return None, Path(out)
    return out.rstrip("/"), work or Path(
        ".build", re.sub(r"[^A-Za-z0-9.-]+", "-", out.removeprefix("s3://")).strip("-")
    )


_FACTORS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def _count(text: str) -> int:
    """A whole number, also written 10_000, 5e6, 20M, 1.5B (billion), 2T, or 100GB."""
    match = re.fullmatch(r"([0-9_]+(?:\.[0-9]+)?(?:[eE][0-9]{1,2})?) ?([A-Z]{0,2})", text.strip().upper())
    if match is None or match[2] not in _FACTORS:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}")
    return round(float(match[1]) * _FACTORS[match[2]])


def build(options: Options) -> Manifest | None:
    """Run a build; returns the manifest, or None for a dry run or a partial (`--only`) build."""
    from corpus.recipe.model import load_recipe

    started = time.monotonic()
    recipe = load_recipe(options.recipe)
    if options.stand_ins:
        from corpus.recipe.stand_ins import with_stand_ins

        recipe, replaced = with_stand_ins(recipe)
        for gated, open_one in replaced.items():
            say(f"stand-in: {open_one} for {gated}")
    unknown = [name for name in options.only if name not in recipe.mixture]
    if unknown:
        raise UserError(f"no mixture entry '{unknown[0]}'", where="--only", fix=nearest(unknown[0], recipe.mixture))
    plans, tokenizer = plan_streams(recipe, options)
    if options.dry_run:
        _show_plans(recipe, plans)
        return None
    records: dict[str, StreamRecord] = {}
    wanted = {name: plan for name, plan in plans.items() if not options.only or name in options.only}
    if options.store:
        from corpus.streams.store import StorePath
        from corpus.streams.upload import check_store, upload_build, upload_stream

        store = StorePath(options.store)
        closed = [name for name, plan in wanted.items() if not plan.source.redistributable]
        check_store(store, closed, options.private_store)
    with contextlib.ExitStack() as stack:
        for plan in plans.values():
            if not plan.is_complete():
                stack.enter_context(_lock(plan))
                # What a killed build left; a live one would hold the lock.
                shutil.rmtree(plan.folder / "work", ignore_errors=True)
        make_units(recipe, plans, wanted, options)
        from corpus.records.stream import load_stream
        from corpus.streams.finish import complete_stream

        for name, plan in wanted.items():
            records[name] = load_stream(plan.folder) if plan.is_complete() else complete_stream(plan)
            if options.store:
                upload_stream(plan.folder, plan.tokenizer_json.parent, plan.data, store, say)
    if options.only:
        say(f"built {', '.join(records)}; build without --only for the manifest")
        return None
    manifest = _write_manifest(recipe, plans, records, tokenizer, options, time.monotonic() - started)
    if options.store:
        upload_build(options.out / recipe.name, store, say)
        say(f"uploaded: {store / recipe.name}; the folder it was made in, {options.out}, can be deleted")
    return manifest


def say(text: str) -> None:
    """One line of news on stderr."""
    print(text, file=sys.stderr, flush=True)


def phase_tokens(recipe: Recipe, max_tokens: int | None) -> int:
    """Target tokens of the phase: the recipe's, or ``max_tokens`` rounded up to whole steps."""
    if max_tokens is None:
        return recipe.tokens
    per_step = recipe.training.global_batch * recipe.seq_len
    return min(recipe.tokens, -(-max_tokens // per_step) * per_step)


def plan_streams(recipe: Recipe, options: Options) -> tuple[dict[str, StreamPlan], Tokenizer]:
    """Find every source's files, the tokenizer, and from them each entry's stream."""
    from corpus.acquire import AcquireConfig, preflight
    from corpus.catalogue.load import find_source
    from corpus.pipeline.comparisons import with_comparisons
    from corpus.recipe.shares import draws
    from corpus.streams.inputs import all_origins, source_inputs, with_evaluations_fetched
    from corpus.streams.plan import StreamPlan
    from corpus.tokenization.engine import choose_engine
    from corpus.tokenization.resolve import resolve_tokenizer

    data = options.out.resolve()
    config = AcquireConfig(
        cache=data / "downloads",
        mirror=options.mirror.resolve() if options.mirror else None,
        cache_limit=options.cache_limit,
        keep=options.keep_downloads,
        offline=options.offline,
        base_dir=options.recipe.resolve().parent,
    )
    sources = {name: find_source(entry.source, recipe.sources) for name, entry in recipe.mixture.items()}
    _refuse_twins(recipe)
    wanted = {name: source for name, source in sources.items() if not options.only or name in options.only}
    # Training a tokenizer and comparing documents across sources take all of them, whatever is built.
    needed = sources if recipe.tokenizer.kind == "train" or any(s.compares for s in recipe.cleaning) else wanted
    cleaning = [cast("CleaningStep", step.at(config.base_dir)) for step in recipe.cleaning]
    listings = preflight(all_origins(needed, cleaning), config)
    cleaning = [with_evaluations_fetched(step, listings, config, data, say) for step in cleaning]
    inputs = {name: source_inputs(name, source, listings, config, data, say) for name, source in needed.items()}
    tokenizer = resolve_tokenizer(recipe.tokenizer, recipe.boundary, recipe.name, inputs, config, data, say)
    engine, note = choose_engine(data / tokenizer.path / "tokenizer.json", options.engine)
    if note:
        say(f"note: {note}; using {engine}, which gives the same ids more slowly")
    samples = phase_tokens(recipe, options.max_tokens) // recipe.seq_len
    drawn = draws({name: entry.weight for name, entry in recipe.mixture.items()}, samples)
    plans = {}
    for name, (source, listing) in inputs.items():
        plans[name] = StreamPlan(
            entry=name,
            source_name=recipe.mixture[name].source,
            source=source,
            origin=sources[name].origin,
            listing=listing,
            tokenizer=tokenizer,
            engine=engine,
            seq_len=recipe.seq_len,
            boundary=recipe.boundary,
            cleaning=cleaning,
            malformed=recipe.malformed,
            unit_bytes=recipe.unit_bytes,
            token_limit=max(1, drawn[name]) * (recipe.seq_len + 1) if options.max_tokens is not None else None,
            seed=recipe.seed,
            data=data,
            acquire=config,
            keep_removed=options.keep_removed,
        )
    return with_comparisons(plans), tokenizer


def _refuse_twins(recipe: Recipe) -> None:
    first: dict[str, str] = {}
    for name, entry in recipe.mixture.items():
        if entry.source in first:
            raise UserError(
                f"entries '{first[entry.source]}' and '{name}' use the same source '{entry.source}'",
                where=f"recipe '{recipe.name}': key 'mixture'",
                fix="Merge them into one entry with the sum of their weights.",
            )
        first[entry.source] = name


@contextlib.contextmanager
def _lock(plan: StreamPlan) -> Iterator[None]:
    """Hold a stream for this build; the lock goes with the process, however it ends."""
    folder = plan.data / ".build"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{plan.folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another build is making this stream",
                where=f"stream {plan.folder.name}",
                fix="Wait for it, or use another --out.",
            ) from None
        yield


def make_units(recipe: Recipe, plans: dict[str, StreamPlan], wanted: dict[str, StreamPlan], options: Options) -> None:
    """Make all missing units of the wanted streams, over as many rounds as a token limit needs.

    Comparisons first look at all ``plans`` they compare.
    """
    from corpus.acquire import Prefetcher
    from corpus.pipeline.comparisons import run_comparisons
    from corpus.pipeline.display import BuildDisplay, SourceTotals
    from corpus.pipeline.job import Job
    from corpus.pipeline.run import run_jobs
    from corpus.streams.finish import unit_bytes, units_to_make

    data = options.out.resolve()
    work = Path(tempfile.mkdtemp(prefix=f"{recipe.name}-", dir=data / ".build"))
    saved = {name: str(plan.save(data / ".build")) for name, plan in plans.items()}
    index_of = {path: name for name, path in saved.items()}
    sizes = {name: {f.name: f.size or plan.unit_bytes for f in plan.listing.files} for name, plan in plans.items()}

    def run(jobs: list[Job], collect: int | None = None) -> None:
        owners = []
        for job in jobs:
            name = index_of[job.plan]
            owners.append((name, unit_bytes(plans[name].units[job.unit], sizes[name])))
        stored: Counter[str] = Counter()
        for name, size in owners:
            stored[name] += size
        totals = {name: SourceTotals(size) for name, size in stored.items()}
        what = "" if collect is None else f" for {recipe.cleaning[collect].step}"
        place = f" on {options.cluster.kind}" if options.cluster else ""
        say(f"{len(jobs)} units of {len(totals)} sources{what}, {options.workers} workers{place}")
        order = [(index_of[job.plan], piece) for job in jobs for piece in _files_of(plans[index_of[job.plan]], job)]
        sources = {name: plan.source for name, plan in plans.items()}
        listings = {name: plan.listing for name, plan in plans.items()}
        config = next(iter(plans.values())).acquire
        with Prefetcher(sources, listings, order, config), BuildDisplay(totals) as display:
            show = functools.partial(_count_up, owners, totals, display)
            run_jobs(jobs, work, options.workers, show, collect, options.cluster)

    if any(plan.comparison_folders for plan in wanted.values()) and not all(p.is_complete() for p in wanted.values()):
        run_comparisons(plans, saved, run)
    while jobs := [
        Job(saved[name], unit.index)
        for name, plan in wanted.items()
        if not plan.is_complete()
        for unit in units_to_make(plan, options.workers)
    ]:
        run(jobs)
    shutil.rmtree(work, ignore_errors=True)


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


def _show_plans(recipe: Recipe, plans: dict[str, StreamPlan]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from corpus.base.numbers import file_size
    from corpus.streams.finish import units_to_make

    table = Table(title=f"{recipe.name}: what would be built", title_justify="left")
    for column in ("entry", "stream", "files", "stored", "units", "to make", "licence"):
        table.add_column(column, justify="right" if column in ("files", "stored", "units", "to make") else "left")
    for name, plan in plans.items():
        to_make = 0 if plan.is_complete() else len(units_to_make(plan, 1))
        table.add_row(
            name, plan.folder.name, str(len(plan.listing.files)), file_size(plan.listing.bytes),
            str(len(plan.units)), "done" if plan.is_complete() else str(to_make), escape(plan.source.licence),
        )  # fmt: skip
    Console().print(table)


def _write_manifest(
    recipe: Recipe,
    plans: dict[str, StreamPlan],
    records: dict[str, StreamRecord],
    tokenizer: Tokenizer,
    options: Options,
    seconds: float,
) -> Manifest:
    from corpus.base.files import fingerprint
    from corpus.recipe.shares import draws
    from corpus.records.manifest import Manifest, ManifestSource
    from corpus.report.page import write_report
    from corpus.report.tables import show_manifest

    tokens = phase_tokens(recipe, options.max_tokens)
    drawn = draws({name: entry.weight for name, entry in recipe.mixture.items()}, tokens // recipe.seq_len)
    shares = recipe.shares()
    sources = {}
    for name, entry in recipe.mixture.items():
        record, plan = records[name], plans[name]
        epochs = drawn[name] / record.samples
        if entry.max_epochs is not None and epochs > entry.max_epochs:
            raise UserError(
                f"the phase would repeat '{name}' {epochs:.2f} times, more than max_epochs {entry.max_epochs:g}",
                where=f"{options.recipe}: key 'mixture.{name}.max_epochs'",
                fix="Lower its weight or the phase's tokens, add data, or raise max_epochs.",
            )
        sources[name] = ManifestSource(
            source=entry.source,
            stream=f"../streams/{plan.folder.name}",
            stream_fingerprint=record.fingerprint,
            revision=record.revision,
            licence=plans[name].source.licence,
            redistributable=plans[name].source.redistributable,
            documents=record.documents,
            tokens=record.tokens.written,
            samples=record.samples,
            text_bytes=record.text_bytes,
            weight_asked=entry.weight,
            weight=shares[name],
            samples_drawn=drawn[name],
            tokens_drawn=drawn[name] * recipe.seq_len,
            epochs=epochs,
        )
    per_step = recipe.training.global_batch * recipe.seq_len
    manifest = Manifest(
        recipe=recipe.name,
        family=recipe.family,
        phase=recipe.phase,
        recipe_sha256=fingerprint(recipe.model_dump(mode="json")),
        seq_len=recipe.seq_len,
        boundary=recipe.boundary,
        document_mask=recipe.document_mask,
        tokenizer=tokenizer,
        tokens=tokens,
        steps=tokens // per_step,
        global_batch=recipe.training.global_batch,
        seed=recipe.seed,
        weight_sum=recipe.weight_sum(),
        sources=sources,
        built={
            "seconds": round(seconds, 1),
            "workers": options.workers,
            "engine": next(iter(plans.values())).engine,
            "python": platform.python_version(),
            "versions": {
                name: metadata.version(name) for name in ("datatrove", "gigatoken", "tokenizers", "zstandard")
            },
        },
    )
    path = manifest.write(options.out / recipe.name)
    show_manifest(manifest)
    say(f"manifest: {path}")
    say(f"report: {write_report(manifest, path.parent)}")
    return manifest


if __name__ == "__main__":
    main()
