"""The work on one unit, as datatrove steps: read -> clean -> tokenise -> pack -> write shards and the unit's record."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import secrets
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from corpus.acquire import fetch, release
from corpus.base.errors import UserError
from corpus.base.files import atomic_write, full_disk, is_full, publish_dir
from corpus.cleaning.comparisons.droplists import DropList, UnitRef, load_drop_list
from corpus.cleaning.comparisons.exact import HashWriter
from corpus.cleaning.comparisons.steps import ExactDedupStep, MinhashStep
from corpus.cleaning.reasons import CONTAMINATED, DropReason
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.documents.units import Unit
from corpus.pipeline.marks import UnitMarks
from corpus.records.stream import Documents, Tokens, UnitRecord
from corpus.streams.mds import ShardWriter
from corpus.streams.plan import HITS_FILE, SHOWN_FILE, TAIL_FILE, UNIT_FILE, StreamPlan, load_plan
from corpus.tokenization.engine import ReferenceEngine, compare, load_engine, special_table
from corpus.tokenization.pack import Packer, with_boundaries

BATCH_DOCUMENTS, BATCH_CHARS = 512, 2 << 20
"""A batch for the tokeniser is closed at either limit."""
SHOWN_UNITS, SHOWN_DOCUMENTS, SHOWN_CHARS = 4, 3, 2000
"""Documents kept as text for the report: of the first units, the first few, cut short."""
CHECK_FIRST, CHECK_EVERY, CHECK_MAX_CHARS = 4, 1024, 1 << 17
"""Documents encoded by both engines: the unit's first ones, then every 1024th, up to this length."""


CLEAN_DOCUMENTS = 64
"""Documents that go through the cleaning steps together."""

BatchStep = Callable[["list[Numbered]"], "list[str | None]"]
"""For each document of a batch: None to keep it, or the reason to drop it."""


class Job(NamedTuple):
    """One unit of one stream."""

    plan: str
    unit: int


class Tally:
    """Counts of the unit in hand, shared by its steps."""

    def __init__(self) -> None:
        self.read = self.kept = self.text_bytes = self.text_tokens = self.boundary_tokens = self.samples = 0
        self.dropped: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.shown: list[dict[str, Any]] = []
        self.hits: list[dict[str, Any]] = []
        """Documents dropped as contaminated: {id, hits}."""
        self.full = False
        """Set when the token limit is reached: the reader stops."""
        self._published = 0.0

    def publish(self, path: Path, every: float = 0.5) -> None:
        """Leave the counts where the progress display finds them, at most once in ``every`` seconds."""
        now = time.monotonic()
        if now - self._published < every:
            return
        self._published = now
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.counts()))
        os.replace(beside, path)

    def counts(self) -> list[int]:
        """Documents, text bytes and tokens so far."""
        return [self.read, self.text_bytes, self.text_tokens]


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


class ReadRecords(UnitStep):
    """Yields a unit's records as documents; counts what cannot be read or has no text."""

    type = "📖 - READER"
    name = "records of a unit"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """See datatrove's PipelineStep."""
        plan, unit = self.job(rank)
        tally, text_of, columns = self.tally, plan.source.adapter.function(), plan.source.adapter.columns()
        if plan.steps:
            columns = None  # a cleaning step may look at any field
        files = {file.name: file for file in plan.listing.files}
        for piece in unit.pieces:
            file = files[piece.file]
            path = fetch(plan.source, plan.listing, file, plan.acquire)
            try:
                records = read_piece(path, file.name, plan.source.format, piece.start, piece.end, columns)
                for place, record in records:
                    tally.read += 1
                    try:
                        if isinstance(record, BadRecord):
                            raise record
                        text = text_of(record)
                        if not text:
                            raise BadRecord("empty")
                    except BadRecord as bad:
                        self._count_bad(plan, f"{file.name}:{place}", bad)
                        continue
                    yield Document(text=text, id=f"{file.name}:{place}", metadata=record)
                    if tally.full:
                        return
            finally:
                release(plan.source, file, plan.acquire)

    def _count_bad(self, plan: StreamPlan, where: str, bad: BadRecord) -> None:
        if plan.malformed == "fail" and bad.reason != "empty":
            raise UserError(
                f"record is malformed ({bad.reason})",
                where=f"{plan.source_name}: {where}",
                fix="Mend the file, or set 'malformed: drop' in the recipe to drop and count such records.",
            ) from None
        self.tally.dropped[bad.reason] += 1


class Numbered(NamedTuple):
    """A document and its place among the unit's readable records, by which comparisons know it."""

    ordinal: int
    document: Document


class Clean(UnitStep):
    """Applies the recipe's cleaning steps in order; counts drops by reason and rewritten documents by step.

    ``until`` stops before that step of the recipe: what a comparison collects has been through the steps before it.
    """

    type = "🔻 - FILTER"
    name = "recipe cleaning"

    def __init__(self, jobs: Path, tally: Tally, until: int | None = None) -> None:
        super().__init__(jobs, tally)
        self.until = until

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Numbered]:
        """See datatrove's PipelineStep."""
        plan, unit = self.job(rank)
        steps = cleaning_functions(plan, unit, self.until)
        numbered = (Numbered(ordinal, document) for ordinal, document in enumerate(data))
        if not steps:
            yield from numbered
            return
        with _Removed(plan, unit if self.until is None else None) as removed:
            while batch := list(itertools.islice(numbered, CLEAN_DOCUMENTS)):
                for name, step in steps:
                    before = [entry.document.text for entry in batch]
                    kept = []
                    for entry, text, reason in zip(batch, before, step(batch), strict=True):
                        if reason is None and not entry.document.text:
                            reason = "empty"
                        if reason is not None:
                            self.tally.dropped[reason] += 1
                            hits = entry.document.metadata["contamination"] if reason == CONTAMINATED else []
                            if hits:
                                self.tally.hits.append({"id": entry.document.id, "hits": hits})
                            removed.add(entry.document, text, reason, hits)
                            continue
                        if entry.document.text is not text and entry.document.text != text:
                            self.tally.changed[name] += 1
                        kept.append(entry)
                    batch = kept
                yield from batch


def cleaning_functions(plan: StreamPlan, unit: Unit, until: int | None) -> list[tuple[str, BatchStep]]:
    """(name, function over a batch) for each cleaning step of the stream, those before ``until`` only."""
    functions: list[tuple[str, BatchStep]] = []
    for position, spec in plan.steps:
        if until is not None and position >= until:
            break
        if isinstance(spec, ExactDedupStep | MinhashStep):
            reason: DropReason = "duplicate" if isinstance(spec, ExactDedupStep) else "near_duplicate"
            drops = load_drop_list(plan.comparison_folders[position], UnitRef(plan.source_name, unit.index), reason)
            functions.append((spec.step, functools.partial(_check_each, drops)))
        else:
            functions.append((spec.step, _over_batches(spec.function())))
    return functions


def _check_each(drops: DropList, batch: list[Numbered]) -> list[str | None]:
    return [drops.check(entry.ordinal) for entry in batch]


def _over_batches(function: Any) -> BatchStep:
    if hasattr(function, "batch"):
        return lambda batch: function.batch([entry.document for entry in batch])
    return lambda batch: [function(entry.document) for entry in batch]


class _Removed:
    """Keeps removed documents, with the reason, in a compressed side file of the unit (when asked to)."""

    def __init__(self, plan: StreamPlan, unit: Unit | None) -> None:
        self._path = plan.removed_file(unit) if unit is not None and plan.keep_removed else None
        self._open = contextlib.ExitStack()
        self._file: Any = None

    def __enter__(self) -> _Removed:
        if self._path is not None:
            import zstandard

            beside = self._open.enter_context(atomic_write(self._path))
            self._file = self._open.enter_context(zstandard.ZstdCompressor().stream_writer(beside, closefd=False))
        return self

    def add(self, document: Document, text: str, reason: str, hits: list[dict[str, Any]]) -> None:
        """A document, the text it had before the step that removed it, and what it shares with evaluation sets."""
        if self._file is not None:
            record = {"id": document.id, "reason": reason, "text": text} | ({"hits": hits} if hits else {})
            self._file.write(orjson.dumps(record) + b"\n")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._open.__exit__(kind, error, trace)


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
        folder, spec = plan.comparison_folders[self.step], dict(plan.steps)[self.step]
        with unit_work(self, plan, unit, rank):
            if isinstance(spec, MinhashStep):
                from corpus.cleaning.comparisons.minhash import write_signatures

                refs = plan.compared_units(self.step)
                position = refs.index(UnitRef(plan.source_name, unit.index))
                write_signatures(folder, refs, position, spec, self._texts(data, rank))
            else:
                writer = HashWriter(folder, UnitRef(plan.source_name, unit.index))
                for ordinal, text in self._texts(data, rank):
                    writer.add(ordinal, text)
                writer.close()

    def _texts(self, data: Iterator[Numbered], rank: int) -> Iterator[tuple[int, str]]:
        for entry in data:
            self.tally.text_bytes += len(entry.document.text)
            self.tally.publish(self.jobs.parent / f"progress-{rank}.json")
            yield entry.ordinal, entry.document.text


class Tokenize(UnitStep):
    """Encodes documents in batches and puts boundary ids around them; proves the engine on a sample of them."""

    type = "🔢 - TOKENIZER"
    name = "batched tokeniser"

    def run(self, data: Iterator[Numbered], rank: int = 0, world_size: int = 1) -> Iterator[NDArray[np.uint32]]:
        """Yields flat arrays of ids with boundaries."""
        plan, unit = self.job(rank)
        engine = load_engine(plan.tokenizer_json, plan.engine)
        is_special = special_table(plan.tokenizer_json, plan.tokenizer.vocab_size)
        lowest_special = int(np.argmax(is_special)) if is_special.any() else len(is_special)
        tally, tokenizer = self.tally, plan.tokenizer
        for texts, names, checked in _batches((entry.document for entry in data), plan.engine != ReferenceEngine.name):
            ids, lengths = engine.encode_batch(texts)
            if checked:
                reference = load_engine(plan.tokenizer_json, ReferenceEngine.name)
                where = [f"{plan.source_name}: {names[index]}" for index in checked]
                compare(engine, reference, [texts[index] for index in checked], where)
            # Special ids are often the last of a vocabulary, above every id of text.
            if len(ids) and ids.max() >= lowest_special and is_special[ids].any():
                spelled = int(np.searchsorted(np.cumsum(lengths), np.flatnonzero(is_special[ids])[0], side="right"))
                raise AssertionError(f"text encoded to a special token: {plan.source_name}: {names[spelled]}")
            tally.kept += len(texts)
            tally.text_bytes += sum(map(_utf8_size, texts))
            tally.text_tokens += len(ids)
            tally.lengths.update(_bit_lengths(lengths))
            packed = with_boundaries(ids, lengths, plan.boundary, tokenizer.bos_id, tokenizer.eos_id)
            tally.boundary_tokens += len(packed) - len(ids)
            if unit.index < SHOWN_UNITS and not tally.shown:
                tally.shown = _shown(texts, names, lengths + (len(packed) - len(ids)) // len(texts), packed)
            tally.publish(self.jobs.parent / f"progress-{rank}.json")
            yield packed


def _batches(data: Iterator[Document], check: bool) -> Iterator[tuple[list[str], list[str], list[int]]]:
    """(texts, their names, which of them to prove) per batch."""
    texts: list[str] = []
    names: list[str] = []
    checked: list[int] = []
    chars = seen = 0
    for document in data:
        if check and (seen < CHECK_FIRST or seen % CHECK_EVERY == 0) and len(document.text) <= CHECK_MAX_CHARS:
            checked.append(len(texts))
        seen += 1
        texts.append(document.text)
        names.append(document.id)
        chars += len(document.text)
        if len(texts) >= BATCH_DOCUMENTS or chars >= BATCH_CHARS:
            yield texts, names, checked
            texts, names, checked, chars = [], [], [], 0
    if texts:
        yield texts, names, checked


def _shown(
    texts: list[str], names: list[str], lengths: NDArray[np.int64], packed: NDArray[np.uint32]
) -> list[dict[str, Any]]:
    """The first documents as {name, text, ids with boundaries}, each cut short, for people to look at."""
    ends = np.cumsum(lengths)
    return [
        {
            "name": names[index],
            "text": texts[index][:SHOWN_CHARS],
            "cut": len(texts[index]) > SHOWN_CHARS,
            "ids": packed[ends[index] - lengths[index] : ends[index]][:SHOWN_CHARS].tolist(),
        }
        for index in range(min(SHOWN_DOCUMENTS, len(texts)))
    ]


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _bit_lengths(lengths: NDArray[np.int64]) -> dict[int, int]:
    """{bit length of n: how many}, for a histogram with doubling bins."""
    bits, counts = np.unique(np.frexp(lengths.astype(np.float64))[1], return_counts=True)
    return {int(bit): int(count) for bit, count in zip(bits, counts, strict=True)}


class WriteShards(UnitStep):
    """Packs ids into samples and writes them as MDS shards beside the unit's record; publishes all or nothing."""

    type = "💽 - WRITER"
    name = "MDS shards of a unit"

    def run(self, data: Iterator[NDArray[np.uint32]], rank: int = 0, world_size: int = 1) -> None:
        """Consumes the pipeline. A failure is left as a file for the parent to report, so that other units go on."""
        plan, unit = self.job(rank)
        # Another node may have a process of the same number on the same unit, when one was taken for lost.
        beside = plan.folder / "work" / f"{unit.folder}-{secrets.token_hex(4)}-{os.getpid()}"
        with unit_work(self, plan, unit, rank):
            try:
                beside.mkdir(parents=True, exist_ok=True)
                self._write(plan, unit, data, beside)
                publish_dir(beside, plan.unit_folder(unit))
            finally:
                # Before a failure is reported: on a full disk the report needs the room.
                shutil.rmtree(beside, ignore_errors=True)

    def _write(self, plan: StreamPlan, unit: Unit, data: Iterator[NDArray[np.uint32]], folder: Path) -> None:
        tally, packer = self.tally, Packer(plan.seq_len + 1, plan.dtype)
        with ShardWriter(folder, plan.seq_len, plan.dtype) as writer:
            for ids in data:
                rows = packer.add(ids)
                writer.write(rows)
                tally.samples += len(rows)
                if plan.token_limit is not None and tally.samples * packer.row >= plan.token_limit:
                    tally.full = True
        (folder / TAIL_FILE).write_bytes(packer.tail.astype("<u4").tobytes())
        record = UnitRecord(
            unit=unit.index,
            pieces=[(piece.file, piece.start, piece.end) for piece in unit.pieces],
            documents=Documents(
                read=tally.read, kept=tally.kept,
                dropped=dict(sorted(tally.dropped.items())), changed=dict(sorted(tally.changed.items())),
            ),
            text_bytes=tally.text_bytes,
            tokens=Tokens(
                text=tally.text_tokens, boundary=tally.boundary_tokens,
                written=tally.samples * packer.row, remainder=len(packer.tail),
            ),
            samples=tally.samples,
            lengths={str(bits): count for bits, count in sorted(tally.lengths.items())},
            complete=not tally.full,
        )  # fmt: skip
        assert record.documents.read == record.documents.kept + sum(record.documents.dropped.values())
        assert record.tokens.text + record.tokens.boundary == record.tokens.written + record.tokens.remainder
        (folder / SHOWN_FILE).write_text(json.dumps(tally.shown))
        if tally.hits:
            (folder / HITS_FILE).write_text("".join(json.dumps(document) + "\n" for document in tally.hits))
        (folder / UNIT_FILE).write_text(json.dumps(record.model_dump(mode="json")))


@contextlib.contextmanager
def unit_work(step: UnitStep, plan: StreamPlan, unit: Unit, rank: int) -> Iterator[None]:
    """Mark a unit as in hand and then as done; leave a failure as a file for the parent, so that other units go on."""
    marks = UnitMarks(step.jobs.parent, rank)
    try:
        with marks:
            yield
            marks.done(step.tally.counts())
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as raised:  # a panic inside a tokeniser's Rust code is no Exception
        error: BaseException = full_disk(plan.data) if is_full(raised) else raised
        report = {
            "where": f"{plan.source_name}, unit {unit.index}",
            "user": [error.what, error.where, error.fix] if isinstance(error, UserError) else None,
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
        (step.jobs.parent / f"failed-{rank}.json").write_text(json.dumps(report))


def unit_pipeline(jobs: Path, collect: int | None) -> list[PipelineStep]:
    """The steps for one unit; rank r of the executor works on job r of the jobs file.

    With ``collect`` it is the pass in which that comparison of the recipe's cleaning looks at all documents.
    """
    tally = Tally()
    if collect is not None:
        return [ReadRecords(jobs, tally), Clean(jobs, tally, collect), Collect(jobs, tally, collect)]
    return [ReadRecords(jobs, tally), Clean(jobs, tally), Tokenize(jobs, tally), WriteShards(jobs, tally)]
