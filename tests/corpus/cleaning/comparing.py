"""What the tests of comparisons share: small corpora, compared in any order of jobs, and by hand."""

from __future__ import annotations

import random
from pathlib import Path

from corpus.cleaning.comparisons.droplists import UnitRef, load_drop_list
from corpus.cleaning.comparisons.keys import write_keys
from corpus.cleaning.comparisons.stages import JOB_MEMORY, Comparison
from corpus.cleaning.step import ComparisonStep

Corpus = dict[UnitRef, list[tuple[int, str]]]
"""Unit -> (ordinal, text) of the documents that reach the step."""
Dropped = dict[UnitRef, dict[int, tuple[UnitRef, int]]]
"""Unit -> ordinal dropped -> the document that stays for it."""


def collect(folder: Path, corpus: Corpus, spec: ComparisonStep, order: list[UnitRef] | None = None) -> None:
    keys_of = spec.keys()
    for ref in order or corpus:
        rows = ((ordinal, keys_of(text)) for ordinal, text in corpus[ref])
        write_keys(folder, ref, ((ordinal, keys) for ordinal, keys in rows if keys is not None))


def compared(folder: Path, units: list[UnitRef], spec: ComparisonStep, memory: int = JOB_MEMORY) -> Comparison:
    return Comparison(folder, units, spec.bands, spec.joins, memory)


def compare(
    folder: Path, units: list[UnitRef], spec: ComparisonStep, memory: int = JOB_MEMORY, seed: int | None = None
) -> list[str]:
    """Do all jobs, in a random order with a seed; the names of the stages."""
    chance = random.Random(seed)
    names = []
    while stage := compared(folder, units, spec, memory).next_stage():
        names.append(stage.name)
        for number in chance.sample(stage.jobs, len(stage.jobs)) if seed is not None else stage.jobs:
            compared(folder, units, spec, memory).run(stage.name, number)
    return names


def dropped(folder: Path, corpus: Corpus, spec: ComparisonStep) -> Dropped:
    """What the main pass would drop, and what stays for each."""
    found: Dropped = {}
    units = list(corpus)
    for ref, documents in corpus.items():
        drops = load_drop_list(folder, ref, spec.reason)
        found[ref] = {}
        for ordinal, _ in documents:
            if drops.check(ordinal) == spec.reason:
                position, kept = drops.kept_for(ordinal)
                found[ref][ordinal] = units[position], kept
        assert len(drops.ordinals) == len(found[ref]) and drops.check(10**9) is None
    return found
