"""Documents -> those that the recipe's cleaning keeps, as it rewrote them."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from datatrove.data import Document

from corpus.base.files import atomic_write
from corpus.cleaning.comparisons.droplists import DropList, UnitRef, load_drop_list, load_ids
from corpus.cleaning.reasons import COMPARED, CONTAMINATED
from corpus.cleaning.step import ComparisonStep, DocumentStep
from corpus.documents.units import Unit
from corpus.pipeline.tally import Tally
from corpus.pipeline.unit_step import Numbered, UnitStep
from corpus.pipeline.verdicts import BatchStep, Verdicts, load_verdicts
from corpus.streams.plan import StreamPlan

CLEAN_DOCUMENTS = 64
"""Documents that go through the cleaning steps together."""
CLEAN_SAMPLED = 4
"""The same in a sample, which takes a little of each unit and must not overshoot."""


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
        verdicts = Verdicts()
        with _Removed(plan, unit if self.until is None else None) as removed:
            together = CLEAN_DOCUMENTS if plan.sample is None else CLEAN_SAMPLED
            while batch := list(itertools.islice(numbered, together)):
                for position, name, step in steps:
                    before = [entry.document.text for entry in batch]
                    kept = []
                    for entry, text, reason in zip(batch, before, step(batch), strict=True):
                        if reason is None and not entry.document.text:
                            reason = "empty"
                        if reason is not None:
                            self.tally.drop(reason, entry.document.id, name)
                            verdicts.dropped[position][entry.ordinal] = reason
                            hits = entry.document.metadata["contamination"] if reason == CONTAMINATED else []
                            if hits:
                                verdicts.hits[entry.ordinal] = hits
                                self.tally.hits.append({"id": entry.document.id, "hits": hits})
                            removed.add(entry.document, text, reason)
                            continue
                        if entry.document.text is not text and entry.document.text != text:
                            self.tally.changed[name] += 1
                            verdicts.changed[position].add(entry.ordinal)
                        kept.append(entry)
                    batch = kept
                yield from batch
        if self.until is not None:
            verdicts.save(plan.comparison_folders[self.until], UnitRef(plan.source_name, unit.index))


def cleaning_functions(plan: StreamPlan, unit: Unit, until: int | None) -> list[tuple[int, str, BatchStep]]:
    """(place, name, function over a batch) for each cleaning step of the stream, those before ``until`` only.

    Document steps before the last comparison among them have had their say: their verdicts are taken from its pass.
    """
    functions: list[tuple[int, str, BatchStep]] = []
    specs = [(position, spec) for position, spec in plan.steps if until is None or position < until]
    passed = max((position for position, spec in specs if isinstance(spec, ComparisonStep)), default=-1)
    ref = UnitRef(plan.source_name, unit.index)
    verdicts = load_verdicts(plan.comparison_folders[passed], ref) if passed >= 0 else None
    for position, spec in specs:
        if isinstance(spec, ComparisonStep):
            drops = load_drop_list(plan.comparison_folders[position], ref, spec.reason)
            step: BatchStep = functools.partial(
                _check_each, drops, _Kept(plan, position) if plan.keep_removed else None
            )
        elif verdicts is not None and position < passed:
            step = verdicts.replayed(position, functools.partial(_document_step, spec))
        else:
            step = _document_step(spec)
        functions.append((position, spec.step, step))
    return functions


def _check_each(drops: DropList, kept: _Kept | None, batch: list[Numbered]) -> list[str | None]:
    reasons = [drops.check(entry.ordinal) for entry in batch]
    for entry, reason in zip(batch, reasons, strict=True):
        if kept is not None and reason is not None:
            entry.document.metadata["kept"] = kept.name(*drops.kept_for(entry.ordinal))
    return reasons


class _Kept:
    """Names the documents that stay for those that a comparison drops."""

    def __init__(self, plan: StreamPlan, position: int) -> None:
        self._folder, self._units = plan.comparison_folders[position], plan.compared_units(position)
        self._ids = functools.lru_cache(maxsize=16)(functools.partial(load_ids, self._folder))

    def name(self, unit: int, ordinal: int) -> str:
        """<source>: <file>:<place>; by number where the pass that compared them was not told to keep names."""
        ref = self._units[unit]
        names = self._ids(ref)
        return f"{ref.source}: {names[ordinal]}" if names else f"{ref.source}, unit {ref.unit}, record {ordinal}"


def _document_step(spec: DocumentStep) -> BatchStep:
    function: Any = spec.function()
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

    def add(self, document: Document, text: str, reason: str) -> None:
        """A document and the text it had before the step that removed it.

        With it, what the step found: what the document shares with evaluation sets, or the document that stays for it.
        """
        if self._file is not None:
            record = {"id": document.id, "reason": reason, "text": text}
            if reason == CONTAMINATED:
                record["hits"] = document.metadata["contamination"]
            if reason in COMPARED:
                record["kept"] = document.metadata["kept"]
            self._file.write(orjson.dumps(record) + b"\n")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._open.__exit__(kind, error, trace)
