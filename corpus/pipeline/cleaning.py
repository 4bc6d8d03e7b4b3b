"""Documents -> those that the recipe's cleaning keeps, as it rewrote them."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from datatrove.data import Document

from corpus.base.files import atomic_write
from corpus.cleaning.comparisons.droplists import DropList, UnitRef, load_drop_list
from corpus.cleaning.reasons import CONTAMINATED
from corpus.cleaning.step import ComparisonStep
from corpus.documents.units import Unit
from corpus.pipeline.tally import Tally
from corpus.pipeline.unit_step import Numbered, UnitStep
from corpus.streams.plan import StreamPlan

CLEAN_DOCUMENTS = 64
"""Documents that go through the cleaning steps together."""

BatchStep = Callable[["list[Numbered]"], "list[str | None]"]
"""For each document of a batch: None to keep it, or the reason to drop it."""


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
        if isinstance(spec, ComparisonStep):
            ref = UnitRef(plan.source_name, unit.index)
            drops = load_drop_list(plan.comparison_folders[position], ref, spec.reason)
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
