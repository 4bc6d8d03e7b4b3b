"""Exact deduplication: which copy stays, whatever the partitions, the workers and the order they finish in."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.base.errors import UserError
from corpus.cleaning.comparisons.droplists import UnitRef, load_drop_list
from corpus.cleaning.comparisons.exact import HashWriter, find_duplicates, partitions_for, write_drop_lists

Corpus = dict[UnitRef, list[tuple[int, str]]]
"""Unit -> (ordinal, text) of the documents that reach the step."""


def hash_pass(folder: Path, corpus: Corpus, order: list[UnitRef]) -> None:
    for ref in order:
        writer = HashWriter(folder, ref)
        for ordinal, text in corpus[ref]:
            writer.add(ordinal, text)
        writer.close()


def dropped(folder: Path, corpus: Corpus) -> dict[UnitRef, list[int]]:
    """Ordinals dropped per unit, as the main pass would find them."""
    found = {}
    for ref, documents in corpus.items():
        drops = load_drop_list(folder, ref, "duplicate")
        found[ref] = [ordinal for ordinal, _ in documents if drops.check(ordinal) == "duplicate"]
        assert drops.count == len(found[ref])
        assert drops.check(10**9) is None
    return found


def by_hand(corpus: Corpus) -> dict[UnitRef, list[int]]:
    seen: set[str] = set()
    found: dict[UnitRef, list[int]] = {}
    for ref, documents in corpus.items():
        found[ref] = []
        for ordinal, text in documents:
            if text in seen:
                found[ref].append(ordinal)
            seen.add(text)
    return found


def test_the_earliest_copy_stays_within_and_across_sources(tmp_path: Path) -> None:
    web0, web1, wiki = UnitRef("web", 0), UnitRef("web", 1), UnitRef("wiki", 0)
    corpus: Corpus = {
        web0: [(0, "a"), (2, "b"), (3, "a"), (7, "B")],
        web1: [(0, "c"), (1, "b"), (2, "a ")],
        wiki: [(0, "c"), (1, "d"), (5, "a"), (9, "e\u0301"), (10, "\u00e9")],
    }
    hash_pass(tmp_path, corpus, list(corpus))
    assert find_duplicates(tmp_path, list(corpus), 0, 1) == 4
    assert write_drop_lists(tmp_path, list(corpus), 1) == 4
    assert dropped(tmp_path, corpus) == {web0: [3], web1: [1], wiki: [0, 5]}
    # The recipe's source order decides which copy stays, not the sources' names.
    turned = {wiki: corpus[wiki], web0: corpus[web0], web1: corpus[web1]}
    find_duplicates(tmp_path, list(turned), 0, 1)
    write_drop_lists(tmp_path, list(turned), 1)
    assert dropped(tmp_path, turned) == {wiki: [], web0: [0, 3], web1: [0, 1]}
    # One source alone: nothing of the other one counts.
    find_duplicates(tmp_path, [web0, web1], 0, 1)
    write_drop_lists(tmp_path, [web0, web1], 1)
    assert load_drop_list(tmp_path, web1, "duplicate").check(0) is None


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=12), min_size=1, max_size=6),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_any_partitioning_and_order_of_work_gives_the_same_lists(
    tmp_path_factory: pytest.TempPathFactory, units: list[list[str]], partitions: int, chance: random.Random
) -> None:
    corpus: Corpus = {
        UnitRef("s" + str(index // 2), index % 2): [(place * 3, text) for place, text in enumerate(texts)]
        for index, texts in enumerate(units)
    }
    folder = tmp_path_factory.mktemp("dedup")
    order = list(corpus)
    chance.shuffle(order)
    hash_pass(folder, corpus, order)
    parts = list(range(partitions))
    chance.shuffle(parts)
    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(lambda part: find_duplicates(folder, list(corpus), part, partitions), parts))
    assert write_drop_lists(folder, list(corpus), partitions) == sum(counts)
    assert dropped(folder, corpus) == by_hand(corpus)


def test_odd_texts_and_a_repeated_pass(tmp_path: Path) -> None:
    unit = UnitRef("s", 0)
    corpus: Corpus = {unit: [(0, "\ud800"), (1, "\ud800"), (2, ""), (3, ""), (4, "\x00")]}
    for _ in range(2):  # a unit tried again after a crash writes the same file
        hash_pass(tmp_path, corpus, [unit])
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["000000.hash.npy"]
    find_duplicates(tmp_path, [unit], 0, 1)
    write_drop_lists(tmp_path, [unit], 1)
    assert dropped(tmp_path, corpus) == {unit: [1, 3]}


def test_partitions_bound_the_memory_and_a_missing_pass_is_named(tmp_path: Path) -> None:
    unit, other = UnitRef("s", 0), UnitRef("s", 1)
    hash_pass(tmp_path, {unit: [(number, str(number)) for number in range(1000)]}, [unit])
    assert partitions_for(tmp_path, [unit]) == 1
    assert partitions_for(tmp_path, [unit], memory=10_000) == 8
    with pytest.raises(UserError, match=r"000001\.hash\.npy.*not finished"):
        find_duplicates(tmp_path, [unit, other], 0, 1)
    with pytest.raises(UserError, match="not finished"):
        load_drop_list(tmp_path, unit, "duplicate")
    unit.file(tmp_path, "hash.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="damaged"):
        find_duplicates(tmp_path, [unit], 0, 1)
