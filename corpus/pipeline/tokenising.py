"""Documents -> their ids, with boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from datatrove.data import Document
from numpy.typing import NDArray

from corpus.pipeline.unit_step import Numbered, UnitStep
from corpus.streams.plan import SHOWN_CHARS, SHOWN_DOCUMENTS, SHOWN_UNITS
from corpus.tokenization.check import load_engine, special_table
from corpus.tokenization.engine import ReferenceEngine, compare
from corpus.tokenization.pack import with_boundaries

BATCH_DOCUMENTS, BATCH_CHARS = 512, 2 << 20
"""A batch for the tokeniser is closed at either limit."""
CHECK_FIRST, CHECK_EVERY, CHECK_MAX_CHARS = 4, 1024, 1 << 17
"""Documents encoded by both engines: the unit's first ones, then every 1024th, up to this length."""


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
        cap = None if plan.sample is None else plan.unit_cap()
        # A sample of many units takes little of each, so it must not overshoot by a batch.
        chars = BATCH_CHARS if cap is None else min(BATCH_CHARS, cap)
        documents = (entry.document for entry in data)
        for texts, names, checked in _batches(documents, plan.engine != ReferenceEngine.name, chars):
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
            tally.full = cap is not None and tally.text_tokens + tally.boundary_tokens >= cap
            grown = lengths + (len(packed) - len(ids)) // len(texts)
            tally.places.append((names, grown))
            if unit.index < SHOWN_UNITS and not tally.shown:
                tally.shown = _shown(texts, names, grown, packed)
            tally.publish(self.jobs.parent / f"progress-{rank}.json")
            yield packed


def _batches(
    data: Iterator[Document], check: bool, most_chars: int
) -> Iterator[tuple[list[str], list[str], list[int]]]:
    """(texts, their names, which of them to prove) per batch of ``most_chars`` or a document more."""
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
        if len(texts) >= BATCH_DOCUMENTS or chars >= most_chars:
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
