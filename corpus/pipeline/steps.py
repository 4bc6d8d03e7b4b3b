"""The work on one unit, as datatrove steps: read -> clean -> tokenise -> pack -> write shards and the unit's record."""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from corpus.acquire import fetch, release
from corpus.adapters import BadRecord
from corpus.errors import UserError
from corpus.files import publish_dir
from corpus.manifest import Documents, Tokens, UnitRecord
from corpus.pack import Packer, with_boundaries
from corpus.pipeline.plan import TAIL_FILE, UNIT_FILE, StreamPlan, load_plan
from corpus.pipeline.run import UnitMarks
from corpus.read import read_piece
from corpus.tokenization.engine import ReferenceEngine, compare, load_engine, special_table
from corpus.units import Unit

SHARD_BYTES = 64 << 20
BATCH_DOCUMENTS, BATCH_CHARS = 512, 2 << 20
"""A batch for the tokeniser is closed at either limit."""
CHECK_FIRST, CHECK_EVERY, CHECK_MAX_CHARS = 4, 1024, 1 << 17
"""Documents encoded by both engines: the unit's first ones, then every 1024th, up to this length."""


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
        if plan.cleaning:
            columns = None  # a cleaning step may look at any field
        files = {file.name: file for file in plan.listing.files}
        for piece in unit.pieces:
            file = files[piece.file]
            path = fetch(plan.source, plan.listing, file, plan.acquire)
            for place, record in read_piece(path, file.name, plan.source.format, piece.start, piece.end, columns):
                tally.read += 1
                try:
                    if isinstance(record, BadRecord):
                        raise record
                    text = text_of(record)
                    if not text:
                        raise BadRecord("empty")
                except BadRecord as bad:
                    if plan.malformed == "fail" and bad.reason != "empty":
                        raise UserError(
                            f"record is malformed ({bad.reason})",
                            where=f"{plan.source_name}: {file.name}:{place}",
                            fix="Mend the file, or set 'malformed: drop' in the recipe to drop and count such records.",
                        ) from None
                    tally.dropped[bad.reason] += 1
                    continue
                yield Document(text=text, id=f"{file.name}:{place}", metadata=record)
                if tally.full:
                    return
            release(plan.source, file, plan.acquire)


class Clean(UnitStep):
    """Applies the recipe's cleaning steps in order; counts drops by reason and rewritten documents by step."""

    type = "🔻 - FILTER"
    name = "recipe cleaning"

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """See datatrove's PipelineStep."""
        plan, _ = self.job(rank)
        steps = [(spec.step, spec.function()) for spec in plan.cleaning]
        if not steps:
            yield from data
            return
        for document in data:
            for name, step in steps:
                before = document.text
                reason = step(document)
                if reason is None and not document.text:
                    reason = "empty"
                if reason is not None:
                    self.tally.dropped[reason] += 1
                    break
                if document.text is not before and document.text != before:
                    self.tally.changed[name] += 1
            else:
                yield document


class Tokenize(UnitStep):
    """Encodes documents in batches and puts boundary ids around them; proves the engine on a sample of them."""

    type = "🔢 - TOKENIZER"
    name = "batched tokeniser"

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[NDArray[np.uint32]]:
        """Yields flat arrays of ids with boundaries."""
        plan, _ = self.job(rank)
        engine = load_engine(plan.tokenizer_json, plan.engine)
        is_special = special_table(plan.tokenizer_json, plan.tokenizer.vocab_size)
        tally, tokenizer = self.tally, plan.tokenizer
        for texts, names, checked in _batches(data, plan.engine != ReferenceEngine.name):
            ids, lengths = engine.encode_batch(texts)
            if checked:
                reference = load_engine(plan.tokenizer_json, ReferenceEngine.name)
                where = [f"{plan.source_name}: {names[index]}" for index in checked]
                compare(engine, reference, [texts[index] for index in checked], where)
            if is_special[ids].any():
                spelled = int(np.searchsorted(np.cumsum(lengths), np.flatnonzero(is_special[ids])[0], side="right"))
                raise AssertionError(f"text encoded to a special token: {plan.source_name}: {names[spelled]}")
            tally.kept += len(texts)
            tally.text_bytes += sum(map(_utf8_size, texts))
            tally.text_tokens += len(ids)
            tally.lengths.update(_bit_lengths(lengths))
            packed = with_boundaries(ids, lengths, plan.boundary, tokenizer.bos_id, tokenizer.eos_id)
            tally.boundary_tokens += len(packed) - len(ids)
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
        final = plan.unit_folder(unit)
        beside = plan.folder / "work" / f"{unit.folder}-{os.getpid()}"
        marks = UnitMarks(self.jobs.parent, rank)
        try:
            with marks:
                beside.mkdir(parents=True, exist_ok=True)
                self._write(plan, unit, data, beside)
                publish_dir(beside, final)
                marks.done(self.tally.counts())
        except Exception as error:
            report = {
                "where": f"{plan.source_name}, unit {unit.index}",
                "user": [error.what, error.where, error.fix] if isinstance(error, UserError) else None,
                "error": _disk_full(error, plan) or f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }
            (self.jobs.parent / f"failed-{rank}.json").write_text(json.dumps(report))
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _write(self, plan: StreamPlan, unit: Unit, data: Iterator[NDArray[np.uint32]], folder: Path) -> None:
        tally, packer = self.tally, Packer(plan.seq_len + 1, plan.dtype)
        with shard_writer(folder, plan.seq_len, plan.dtype) as writer:
            for ids in data:
                for row in packer.add(ids):
                    writer.write({"ids": row})
                    tally.samples += 1
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
        (folder / UNIT_FILE).write_text(json.dumps(record.model_dump(mode="json")))


def _disk_full(error: Exception, plan: StreamPlan) -> str | None:
    if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
        return f"no space left under {plan.data}; free some and run the same command again"
    return None


def shard_writer(folder: Path, seq_len: int, dtype: str) -> Any:
    """A streaming MDSWriter for samples of seq_len + 1 ids: zstd shards, an xxh64 hash of each in index.json."""
    from streaming import MDSWriter

    return MDSWriter(
        out=str(folder),
        columns={"ids": f"ndarray:{dtype}:{seq_len + 1}"},
        compression="zstd",
        hashes=["xxh64"],
        size_limit=SHARD_BYTES,
        exist_ok=False,
    )


def unit_pipeline(jobs: Path) -> list[PipelineStep]:
    """The steps for one unit; rank r of the executor works on job r of the jobs file."""
    tally = Tally()
    return [step(jobs, tally) for step in (ReadRecords, Clean, Tokenize, WriteShards)]
