"""From finished units to a complete stream: choose them, pack their tails, merge the index, write the record."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpus.acquire.identity import recorded_origin
from corpus.base.errors import UserError
from corpus.base.files import (
    INDEX_FILE,
    discard_dir,
    fsync_dir,
    missing_shards,
    publish_dir,
    read_json,
    sha256_file,
    shard_parts,
    write_json,
    write_json_rows,
)
from corpus.cleaning.decontamination.coverage import coverage
from corpus.documents.sampling import folder_of
from corpus.documents.units import Unit
from corpus.records.drops import account
from corpus.records.stream import STREAM_FILE, Documents, Sampled, StreamRecord, Tokens, UnitRecord, load_stream
from corpus.streams.made import chosen_units, ids_of, unit_record
from corpus.streams.mds import ShardWriter
from corpus.streams.plan import (
    DROPS_FILE,
    HITS_FILE,
    KEY_FILE,
    PLACES_FILE,
    SHOWN_FILE,
    TAIL_FILE,
    UNIT_FILE,
    StreamPlan,
)
from corpus.tokenization.pack import Packer, join_tail


def unit_bytes(unit: Unit, sizes: dict[str, int]) -> int:
    """Stored bytes of a unit."""
    return sum(sizes[piece.file] if piece.end < 0 else piece.end - piece.start for piece in unit.pieces)


class EmptyStream(UserError):
    """A source that does not fill one sample."""


class TornUnits(UserError):
    """Units that lacked some of their bytes; they were set aside, so that they are made again."""


def complete_stream(plan: StreamPlan) -> StreamRecord:
    """Complete a stream whose units are all on disk; returns its record, whose file is written last.

    Raises TornUnits when one of them does not hold what it says it does.
    """
    _check_units(plan)
    units = [unit_record(plan, unit) for unit in chosen_units(plan)]
    tail_tokens, tail_samples = _write_tail(plan, units)
    if not tail_samples + sum(unit.samples for unit in units):
        raise EmptyStream(
            f"yields less than one sample of {plan.seq_len + 1} tokens: {_account(plan, units)}",
            where=f"source '{plan.source_name}'",
            fix="Check its files and the cleaning steps, use a shorter seq_len, or leave it out of the mixture.",
        )
    stored = Counter[str]()
    write_json_rows(plan.folder / INDEX_FILE, {"version": 2}, "shards", _index_entries(plan, units, stored))
    record = _record(plan, units, tail_tokens, tail_samples, stored)
    kept = {f"{unit.unit:06d}" for unit in units}
    for folder in list((plan.folder / "units").iterdir()):
        if folder.name not in kept:
            discard_dir(folder)
    # Folders that hold something are another attempt's: it may be writing, and is cleared once it is known to be dead.
    for attempt in [*(plan.folder / "work").glob("*"), plan.folder / "work"]:
        with contextlib.suppress(OSError):
            attempt.rmdir()
    write_json(plan.folder / KEY_FILE, plan.key_parts())
    fsync_dir(plan.folder)
    facts = record.model_dump(mode="json", exclude={"units"})
    write_json_rows(plan.folder / STREAM_FILE, facts, "units", (unit.model_dump(mode="json") for unit in units))
    return record


def stream_files(folder: Path) -> list[str]:
    """Names, relative to it, of the files that a complete stream consists of, but for its record."""
    inside = [INDEX_FILE, f"tail/{INDEX_FILE}", *(part["basename"] for part in shard_parts(folder))]
    optional = [KEY_FILE]
    for unit in load_stream(folder).units:
        place = f"units/{unit.unit:06d}"
        inside += [f"{place}/{name}" for name in (INDEX_FILE, UNIT_FILE, TAIL_FILE)]
        optional += [f"{place}/{name}" for name in (SHOWN_FILE, HITS_FILE, PLACES_FILE, DROPS_FILE)]
    return [*inside, *(name for name in optional if (folder / name).is_file())]


def _account(plan: StreamPlan, units: list[UnitRecord]) -> str:
    dropped, first = Counter[str](), dict[str, str]()
    for unit in units:
        dropped.update(unit.documents.dropped)
        path = plan.folder / "units" / f"{unit.unit:06d}" / DROPS_FILE
        if path.is_file():
            first = {**read_json(path), **first}
    return account(
        sum(unit.documents.read for unit in units), sum(unit.documents.kept for unit in units), dropped, first
    )


def _check_units(plan: StreamPlan) -> None:
    """Look at every file of every unit: each was whole when it was published, but disks and people lose files."""
    torn = {}
    have = 0
    for unit in plan.units:
        if plan.token_limit is not None and have >= plan.token_limit:
            break
        folder = plan.unit_folder(unit)
        try:
            record = unit_record(plan, unit)
            problems = missing_shards(folder)
        except UserError as error:
            torn[unit] = [error.one_line()]
            continue
        have += ids_of(record)
        if not (folder / INDEX_FILE).is_file():
            problems.append(f"{INDEX_FILE}: missing")
        elif (samples := sum(shard["samples"] for shard in read_json(folder / INDEX_FILE)["shards"])) != record.samples:
            problems.append(f"{INDEX_FILE}: {samples:,} samples instead of {record.samples:,}")
        tail = folder / TAIL_FILE
        if not tail.is_file() or tail.stat().st_size != 4 * record.tokens.remainder:
            problems.append(f"{TAIL_FILE}: missing or cut off")
        if problems:
            torn[unit] = problems
    if torn:
        for unit in torn:
            discard_dir(plan.unit_folder(unit))
        first, problems = next(iter(torn.items()))
        raise TornUnits(
            f"{len(torn)} units lost some of their bytes (unit {first.folder}: {problems[0]}) and are made again",
            where=f"stream {plan.folder.name}",
            fix="Run the same command again.",
        )


def _write_tail(plan: StreamPlan, units: list[UnitRecord]) -> tuple[Tokens, int]:
    """Pack the units' left-over ids, in unit order, into `tail/`.

    Returns its token counts (text 0, boundary: the marks added between fragments) and its number of samples.
    """
    packer = Packer(plan.seq_len + 1, plan.dtype)
    beside = plan.folder / "work" / f"tail-{secrets.token_hex(4)}"
    beside.mkdir(parents=True)
    marks = samples = 0
    with ShardWriter(beside, plan.seq_len, plan.dtype) as writer:
        for unit in units:
            stored = (plan.folder / "units" / f"{unit.unit:06d}" / TAIL_FILE).read_bytes()
            fragment, added = join_tail(np.frombuffer(stored, "<u4"), plan.boundary, plan.tokenizer.bos_id)
            marks += added
            rows = packer.add(fragment)
            writer.write(rows)
            samples += len(rows)
    discard_dir(plan.folder / "tail")
    publish_dir(beside, plan.folder / "tail")
    return Tokens(boundary=marks, written=samples * packer.row, remainder=len(packer.tail)), samples


def _index_entries(plan: StreamPlan, units: list[UnitRecord], stored: Counter[str]) -> Iterator[dict[str, Any]]:
    """The shards of all units and of the tail, named relative to the stream; ``stored`` counts them and their bytes."""
    for folder in [*(f"units/{unit.unit:06d}" for unit in units), "tail"]:
        for entry in json.loads((plan.folder / folder / INDEX_FILE).read_bytes())["shards"]:
            for part in ("raw_data", "zip_data"):
                if entry.get(part):
                    entry[part]["basename"] = f"{folder}/{entry[part]['basename']}"
            stored["shards"] += 1
            stored["bytes"] += (entry["zip_data"] or entry["raw_data"])["bytes"]
            yield entry


def _sampled(plan: StreamPlan, units: list[UnitRecord]) -> Sampled | None:
    """What of the source was read, where it was not all."""
    if plan.sample is None:
        return None
    read = {file for unit in units for file, _, _ in unit.pieces}
    names = [file.name for file in plan.listing.files]
    return Sampled(
        files=len(read),
        of_files=len(names),
        folders=len({folder_of(name) for name in read}),
        of_folders=len({folder_of(name) for name in names}),
        units=len(units),
        of_units=len(plan.units),
    )


def _record(
    plan: StreamPlan, units: list[UnitRecord], tail: Tokens, tail_samples: int, stored: Counter[str]
) -> StreamRecord:
    dropped, changed, lengths = Counter[str](), Counter[str](), Counter[str]()
    for unit in units:
        dropped.update(unit.documents.dropped)
        changed.update(unit.documents.changed)
        lengths.update(unit.lengths)
    tokens = Tokens(
        text=sum(unit.tokens.text for unit in units),
        boundary=sum(unit.tokens.boundary for unit in units) + tail.boundary,
        written=sum(unit.tokens.written for unit in units) + tail.written,
        remainder=tail.remainder,
    )
    documents = Documents(
        read=sum(unit.documents.read for unit in units),
        kept=sum(unit.documents.kept for unit in units),
        dropped=dict(sorted(dropped.items())),
        changed=dict(sorted(changed.items())),
    )
    assert documents.read == documents.kept + sum(documents.dropped.values())
    assert tokens.text + tokens.boundary == tokens.written + tokens.remainder
    assert tokens.remainder <= plan.seq_len
    sizes = [file.size for file in plan.listing.files]
    return StreamRecord(
        key=plan.key,
        source=plan.source_name,
        title=plan.source.title,
        revision=plan.listing.revision,
        origin=recorded_origin(plan.origin, plan.listing),
        licence=plan.source.licence,
        licence_url=plan.source.licence_url,
        redistributable=plan.source.redistributable,
        seq_len=plan.seq_len,
        boundary=plan.boundary,
        dtype=plan.dtype,
        tokenizer=plan.tokenizer,
        cleaning=[step.key() for _, step in plan.steps],
        files=len(sizes),
        file_bytes=None if None in sizes else sum(size or 0 for size in sizes),
        token_limit=plan.token_limit,
        sampled=_sampled(plan, units),
        documents=documents,
        evaluations=coverage(step for _, step in plan.steps),
        text_bytes=sum(unit.text_bytes for unit in units),
        tokens=tokens,
        samples=sum(unit.samples for unit in units) + tail_samples,
        shards=stored["shards"],
        shard_bytes=stored["bytes"],
        lengths={bits: lengths[bits] for bits in sorted(lengths, key=int)},
        index_sha256=sha256_file(plan.folder / INDEX_FILE),
        units=units,
    )
