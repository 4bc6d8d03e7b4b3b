"""The files behind a recipe's mixture: found, checked for access, and joined where records lie in several files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from corpus.acquire import AcquireConfig, Listing, SourceFile, fetch, release
from corpus.acquire.hashes import contents
from corpus.acquire.identity import key_revision
from corpus.acquire.models import listing_of
from corpus.acquire.origins import FilesOrigin
from corpus.acquire.remote import is_remote
from corpus.base.errors import UserError, nearest
from corpus.base.files import atomic_write, fingerprint
from corpus.catalogue.load import load_evaluations
from corpus.catalogue.models import Source
from corpus.cleaning.decontamination.evalsets import WHERE
from corpus.cleaning.decontamination.step import DecontaminateStep
from corpus.cleaning.steps import CleaningStep
from corpus.documents.formats import format_of
from corpus.documents.joins import input_origins, prepare


def source_inputs(
    name: str,
    source: Source,
    listings: Mapping[str, Listing],
    config: AcquireConfig,
    data: Path,
    say: Callable[[str], None],
) -> tuple[Source, Listing]:
    """The source called ``name`` as the builder reads it, and its files; ``listings`` is of all_origins.

    A source with a `prepare` step is downloaded and joined first: it comes back as local JSON lines, whose
    revision is that of everything that went into the join.
    """
    listing = listings[name]
    if not listing.files:
        raise UserError("its patterns match no files", where=f"source '{source.title}'")
    source = _of_its_format(source, listing)
    if source.prepare is None:
        return source, listing
    parts = [("", source, listing)]
    for other, part in _joined_with(source).items():
        joined_name = _joined_name(name, other)
        parts.append((f"{other}:", _of_its_format(part, listings[joined_name]), listings[joined_name]))
    identity = [[prefix + file.name, file.size] for prefix, _, files in parts for file in files.files]
    revisions = [key_revision(part.origin, files) for _, part, files in parts]
    revision = fingerprint([source.prepare.model_dump(mode="json"), revisions, identity])
    folder = data / "prepared" / revision[:16]
    local = {}
    if not folder.is_dir():
        at_once = sum(files.bytes for _, part, files in parts if is_remote(part, config))
        if config.cache_limit is not None and at_once > config.cache_limit:
            raise UserError(
                f"its files are joined first: they take {at_once:,} bytes, but --cache-limit is {config.cache_limit:,}",
                where=source.title,
                fix="Raise --cache-limit.",
            )
        say(f"joining the files of {source.title}")
        local = {
            prefix + file.name: fetch(part, files, file, config)
            for prefix, part, files in parts
            for file in files.files
        }
    joined = prepare(source, local, folder)
    for _, part, held in parts if local else []:
        for file in held.files:
            release(part, file, config)
    whole = [
        SourceFile(path.name, str(path), content.size, f"sha256:{content.sha256}")
        for path, content in zip(joined, contents(joined, config.cache), strict=True)
    ]
    as_read = source.model_copy(update={"format": "jsonl", "origin": FilesOrigin(paths=[str(path) for path in joined])})
    commits = (commit for _, _, files in parts for commit in files.commits)
    return as_read, listing_of(whole, revision, commits)


def _of_its_format(source: Source, listing: Listing) -> Source:
    """The source with the format that its files' names stand for, where it has none of its own."""
    names = [file.name for file in listing.files]
    found = format_of(names, source.given_format(), f"source '{source.title}'")
    return source if found == source.format else source.model_copy(update={"format": found})


def all_origins(sources: dict[str, Source], cleaning: Sequence[CleaningStep]) -> dict[str, Source]:
    """Whatever a build reads: the sources, the further origins they are joined from, evaluation sets that steps name.

    All but the sources are under names of their own.
    """
    everything = dict(sources)
    for name, source in sources.items():
        everything |= {_joined_name(name, other): part for other, part in _joined_with(source).items()}
    return everything | {_evaluation_name(name): source for name, source in evaluation_sets(cleaning).items()}


def _joined_with(source: Source) -> dict[str, Source]:
    return {
        other: source.model_copy(update={"origin": origin, "format": file_format, "prepare": None, "gate": None})
        for other, (origin, file_format) in input_origins(source).items()
    }


def _joined_name(name: str, other: str) -> str:
    return f"{name} (joined with {other})"


def _evaluation_name(name: str) -> str:
    return f"evaluation set {name}"


def evaluation_sets(steps: Sequence[CleaningStep]) -> dict[str, Source]:
    """The evaluation sets that steps name in `against`; raises UserError for a name that is none."""
    known = load_evaluations()
    names = [name for step in steps if isinstance(step, DecontaminateStep) for name in step.names()]
    for name in names:
        if name not in known:
            raise UserError(f"no evaluation set is called '{name}'", where=WHERE, fix=nearest(name, known))
    return {name: known[name] for name in names}


def with_evaluations_fetched(
    step: CleaningStep,
    listings: Mapping[str, Listing],
    config: AcquireConfig,
    data: Path,
    say: Callable[[str], None],
) -> CleaningStep:
    """The step with the evaluation sets it names brought to ``data/evaluations`` and replaced by their files.

    There each file's name starts with its set's: hits are reported by it, and hubs call them all alike.
    """
    if not isinstance(step, DecontaminateStep):
        return step
    # Read by every unit, so never among the downloads that make room for others.
    config = replace(config, cache_limit=None, keep=True)
    files: dict[str, list[Path]] = {}
    for name, source in evaluation_sets([step]).items():
        listing = listings[_evaluation_name(name)]
        folder = data / "evaluations" / f"{name}-{listing.revision.removeprefix('content-')[:12]}"
        say(f"{_evaluation_name(name)}: revision {listing.revision}, {len(listing.files)} files")
        files[name] = []
        for file in listing.files:
            content = fetch(source, listing, file, config).read_bytes()
            target = folder / f"{name}-{file.name.replace('/', '-')}"
            if not target.is_file() or target.read_bytes() != content:
                with atomic_write(target) as stream:
                    stream.write(content)
            files[name].append(target)
    return step.with_files(files)
