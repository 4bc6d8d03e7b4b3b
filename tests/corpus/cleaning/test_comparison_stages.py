"""The stages of a comparison: what is dropped, whatever the jobs, their order, the memory, and where it was stopped."""

from __future__ import annotations

import random
import resource
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.base import files
from corpus.base.errors import UserError
from corpus.cleaning.comparisons import stages
from corpus.cleaning.comparisons.components import connect, distinct
from corpus.cleaning.comparisons.droplists import UnitRef, load_drop_list
from corpus.cleaning.comparisons.keys import KEY_BYTES, KEYS, keys_file, write_keys
from corpus.cleaning.comparisons.stages import Comparison
from corpus.cleaning.comparisons.steps import ExactDedupStep
from tests.corpus.cleaning.comparing import Corpus, Dropped, collect, compare, compared, dropped

EXACT = ExactDedupStep()
Bands = dict[UnitRef, list[list[int]]]
"""Unit -> the keys of each document, as small numbers."""


def by_hand(corpus: Corpus) -> Dropped:
    seen: dict[str, tuple[UnitRef, int]] = {}
    found: Dropped = {}
    for ref, documents in corpus.items():
        found[ref] = {}
        for ordinal, text in documents:
            if text in seen:
                found[ref][ordinal] = seen[text]
            seen.setdefault(text, (ref, ordinal))
    return found


def test_the_earliest_copy_stays_within_and_across_sources(tmp_path: Path) -> None:
    web0, web1, wiki = UnitRef("web", 0), UnitRef("web", 1), UnitRef("wiki", 0)
    corpus: Corpus = {
        web0: [(0, "a"), (2, "b"), (3, "a"), (7, "B")],
        web1: [(0, "c"), (1, "b"), (2, "a ")],
        wiki: [(0, "c"), (1, "d"), (5, "a"), (9, "e\u0301"), (10, "\u00e9")],
    }
    collect(tmp_path / "a", corpus, EXACT)
    assert compare(tmp_path / "a", list(corpus), EXACT) == ["group", "match", "list"]
    expected = {web0: {3: (web0, 0)}, web1: {1: (web0, 2)}, wiki: {0: (web1, 0), 5: (web0, 0)}}
    assert dropped(tmp_path / "a", corpus, EXACT) == expected == by_hand(corpus)
    # The recipe's source order decides which copy stays, not the sources' names.
    turned = {wiki: corpus[wiki], web0: corpus[web0], web1: corpus[web1]}
    collect(tmp_path / "b", turned, EXACT)
    compare(tmp_path / "b", list(turned), EXACT)
    assert {ref: list(found) for ref, found in dropped(tmp_path / "b", turned, EXACT).items()} == {
        wiki: [], web0: [0, 3], web1: [0, 1]
    }  # fmt: skip


def small_corpus(units: list[list[str]]) -> Corpus:
    return {
        UnitRef("s" + str(index // 2), index % 2): [(place * 3, text) for place, text in enumerate(texts)]
        for index, texts in enumerate(units)
    }


TEXTS = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=12), min_size=1, max_size=6)
MEMORY = st.sampled_from([1000, 4000, 1 << 29])
"""Of a job: from a few ranges of keys and parts of documents to one of all."""


@settings(max_examples=15, deadline=None)
@given(TEXTS, MEMORY, st.integers(0, 1 << 30))
def test_any_cut_and_order_of_work_gives_the_same_lists(
    tmp_path_factory: pytest.TempPathFactory, units: list[list[str]], memory: int, seed: int
) -> None:
    corpus, folder = small_corpus(units), tmp_path_factory.mktemp("dedup")
    collect(folder, corpus, EXACT, random.Random(seed).sample(list(corpus), len(corpus)))
    compare(folder, list(corpus), EXACT, memory, seed)
    assert dropped(folder, corpus, EXACT) == by_hand(corpus)
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left <= {"plan.json", "matched.json", "done.json", "000000.drop.npy", "000001.drop.npy"}


def joined_by_hand(bands: Bands) -> Dropped:
    documents = [(ref, ordinal) for ref, keys in bands.items() for ordinal in range(len(keys))]
    first = list(range(len(documents)))
    while True:
        before = list(first)
        by_key: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, (ref, ordinal) in enumerate(documents):
            for band, key in enumerate(bands[ref][ordinal]):
                by_key[band, key].append(number)
        for members in by_key.values():
            lowest = min(first[member] for member in members)
            for member in members:
                first[member] = lowest
        if first == before:
            break
    found: Dropped = {ref: {} for ref in bands}
    for number, lowest in enumerate(first):
        if lowest != number:
            ref, ordinal = documents[number]
            found[ref][ordinal] = documents[lowest]
    return found


def write_bands(folder: Path, bands: Bands) -> None:
    for ref, keys in bands.items():
        rows = (b"".join((key * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)).to_bytes(KEY_BYTES, "little")
                         for key in document) for document in keys)  # fmt: skip
        write_keys(folder, ref, enumerate(rows))


class Joined(ExactDedupStep):
    """Documents with two keys, joined through others."""

    joins = True  # type: ignore[misc]

    @property
    def bands(self) -> int:
        """Two."""
        return 2


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12), min_size=1, max_size=8),
    MEMORY,
    st.integers(0, 1 << 30),
)
def test_documents_joined_through_others_are_one(
    tmp_path_factory: pytest.TempPathFactory, units: list[list[tuple[int, int]]], memory: int, seed: int
) -> None:
    bands: Bands = {UnitRef("s", place): [list(keys) for keys in unit] for place, unit in enumerate(units)}
    folder = tmp_path_factory.mktemp("joined")
    write_bands(folder, bands)
    compare(folder, list(bands), Joined(), memory, seed)
    corpus: Corpus = {ref: [(ordinal, "") for ordinal in range(len(keys))] for ref, keys in bands.items()}
    assert dropped(folder, corpus, Joined()) == joined_by_hand(bands)


@pytest.mark.parametrize("shape", ["chain", "shuffled chain", "star", "late star"])
def test_long_chains_and_large_stars_are_joined_in_few_rounds(tmp_path: Path, shape: str) -> None:
    size = 240
    order = list(range(size))
    if shape == "shuffled chain":
        random.Random(3).shuffle(order)
    keys = [[0, 0] for _ in range(size)]
    for place, document in enumerate(order):
        chain = [place // 2 + 1000, (place + 1) // 2 + 1000]
        keys[document] = chain if "chain" in shape else [1, place] if shape == "star" else [place, size // 2]
    bands: Bands = {UnitRef("s", place): keys[place * 8 : place * 8 + 8] for place in range(size // 8)}
    write_bands(tmp_path, bands)
    names = compare(tmp_path, list(bands), Joined(), 8000)
    assert 2 <= sum(name.startswith("join") for name in names) <= 14
    corpus: Corpus = {ref: [(ordinal, "") for ordinal in range(len(keys))] for ref, keys in bands.items()}
    found = dropped(tmp_path, corpus, Joined())
    assert found == joined_by_hand(bands) and sum(map(len, found.values())) == size - 1


def test_connect_and_distinct_agree_with_the_definition() -> None:
    later, earlier = np.array([5, 9, 9, 7, 5], np.uint64), np.array([2, 5, 5, 1, 2], np.uint64)
    assert [column.tolist() for column in distinct(later, earlier)] == [[5, 7, 9], [2, 1, 5]]
    assert [column.tolist() for column in connect(later, earlier)] == [[5, 7, 9], [2, 1, 2]]
    assert [column.tolist() for column in connect(later[:0], earlier[:0])] == [[], []]


class Stopped(Exception):
    """The build is gone."""


def test_stopped_anywhere_it_goes_on_to_the_same_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(8)
    bands: Bands = {
        UnitRef("s", place): [[chance.randrange(60), chance.randrange(60)] for _ in range(9)] for place in range(6)
    }
    units, spec = list(bands), Joined()
    corpus: Corpus = {ref: [(ordinal, "") for ordinal in range(9)] for ref in units}
    left = 0
    wanted = joined_by_hand(bands)

    def counting(replace: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*paths: Path, **options: bool) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped
            replace(*paths, **options)

        return wrapped

    monkeypatch.setattr(files.os, "replace", counting(files.os.replace))
    monkeypatch.setattr(stages.shutil, "rmtree", counting(stages.shutil.rmtree))
    left = 10**9
    write_bands(tmp_path / "whole", bands)
    compare(tmp_path / "whole", units, spec, 3000)
    total = 10**9 - left
    assert total > 50
    for stop in range(len(units), total, 7):
        folder = tmp_path / str(stop)
        left = stop
        with pytest.raises(Stopped):
            write_bands(folder, bands)
            compare(folder, units, spec, 3000)
        left = 10**9
        compare(folder, units, spec, 3000)
        assert dropped(folder, corpus, spec) == wanted
        assert not list(folder.glob("_*"))


def test_keys_are_read_under_a_low_limit_of_open_files(tmp_path: Path) -> None:
    corpus = {UnitRef("s", place): [(0, str(place % 100))] for place in range(300)}
    collect(tmp_path, corpus, EXACT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))
    try:
        compare(tmp_path, list(corpus), EXACT, 20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(map(len, dropped(tmp_path, corpus, EXACT).values())) == 200


def test_odd_texts_and_a_repeated_pass(tmp_path: Path) -> None:
    unit = UnitRef("s", 0)
    corpus: Corpus = {unit: [(0, "\ud800"), (1, "\ud800"), (2, ""), (3, ""), (4, "\x00")]}
    for _ in range(2):  # a unit tried again after a crash writes the same file
        collect(tmp_path, corpus, EXACT)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["000000.keys"]
    compare(tmp_path, [unit], EXACT)
    assert dropped(tmp_path, corpus, EXACT) == {unit: {1: (unit, 0), 3: (unit, 2)}}
    assert not (tmp_path / KEYS).exists()


def test_jobs_are_cut_by_memory_and_a_missing_pass_is_named(tmp_path: Path) -> None:
    unit, other = UnitRef("s", 0), UnitRef("s", 1)
    collect(tmp_path, {unit: [(number, str(number)) for number in range(1000)]}, EXACT)
    stage = Comparison(tmp_path, [unit], 1, False, memory=10_000).next_stage()
    assert stage is not None and stage.name == "group" and stage.jobs == [0]
    assert compared(tmp_path, [unit], EXACT).rows == 1000
    (tmp_path / "plan.json").unlink()
    with pytest.raises(UserError, match=r"000001\.keys.*not finished"):
        compared(tmp_path, [unit, other], EXACT).next_stage()
    with pytest.raises(UserError, match="not finished"):
        load_drop_list(tmp_path, unit, "duplicate")
    keys_file(tmp_path, unit).write_bytes(b"short")
    with pytest.raises(UserError, match="damaged"):
        compared(tmp_path, [unit], EXACT).next_stage()


def test_no_units_and_empty_units(tmp_path: Path) -> None:
    assert compare(tmp_path / "none", [], EXACT) == ["match"]
    corpus: Corpus = {UnitRef("s", 0): [], UnitRef("s", 1): [(0, "a")]}
    for memory in (100, 1 << 29):
        folder = tmp_path / str(memory)
        collect(folder, corpus, Joined())
        compare(folder, list(corpus), EXACT, memory)
