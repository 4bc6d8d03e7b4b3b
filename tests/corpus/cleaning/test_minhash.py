"""MinHash near-deduplication: near copies go, different texts stay, and nothing depends on the order of work."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from corpus.base.errors import UserError
from corpus.cleaning.comparisons import minhash
from corpus.cleaning.comparisons.droplists import UnitRef, load_drop_list
from corpus.cleaning.comparisons.minhash import find_pairs, write_near_drop_lists, write_signatures
from corpus.cleaning.comparisons.steps import MinhashStep

SPEC = MinhashStep(ngram=3, buckets=12, hashes_per_bucket=4)
WEB0, WEB1, WIKI = UnitRef("web", 0), UnitRef("web", 1), UnitRef("wiki", 0)
Corpus = dict[UnitRef, list[tuple[int, str]]]


def essay(seed: int) -> str:
    chance = random.Random(seed)
    return " ".join(f"{chance.choice('aeiou')}{chance.randrange(10**6):x}" for _ in range(200))


def near(text: str, seed: int) -> str:
    """The text with two words of its 200 replaced, other case and some punctuation."""
    words = text.upper().split()
    chance = random.Random(seed)
    for place in chance.sample(range(len(words)), 2):
        words[place] = "changed"
    return ", ".join(words) + "."


A, B, C, D = map(essay, range(4))
CORPUS: Corpus = {
    WEB0: [(1, A), (4, B), (6, "short text")],
    WEB1: [(0, C), (3, near(A, 1)), (5, near(C, 2))],
    WIKI: [(2, near(B, 3)), (7, D), (8, near(A, 4)), (9, "short text")],
}
EXPECTED = {WEB0: [], WEB1: [3, 5], WIKI: [2, 8]}


def build(folder: Path, corpus: Corpus, seed: int) -> dict[UnitRef, list[int]]:
    """Run the stages, units and buckets in a random order; ordinals dropped per unit."""
    chance = random.Random(seed)
    units, buckets = list(corpus), list(range(SPEC.buckets))
    for position in chance.sample(range(len(units)), len(units)):
        write_signatures(folder, units, position, SPEC, iter(corpus[units[position]]))
    for bucket in chance.sample(buckets, len(buckets)):
        find_pairs(folder, units, SPEC, bucket)
    total = write_near_drop_lists(folder, units, SPEC)
    found = {}
    for ref, documents in corpus.items():
        drops = load_drop_list(folder, ref, "near_duplicate")
        found[ref] = [ordinal for ordinal, _ in documents if drops.check(ordinal) == "near_duplicate"]
    assert total == sum(map(len, found.values()))
    return found


def test_near_copies_go_the_earliest_and_the_different_stay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert build(tmp_path / "a", CORPUS, 0) == EXPECTED
    assert capfd.readouterr() == ("", ""), "a stage must not write over the builder's progress display"
    turned = {WIKI: CORPUS[WIKI], WEB0: CORPUS[WEB0], WEB1: CORPUS[WEB1]}
    assert build(tmp_path / "b", turned, 0) == {WIKI: [], WEB0: [1, 4], WEB1: [3, 5]}


def test_the_order_of_work_and_a_repeated_stage_change_nothing(tmp_path: Path) -> None:
    for seed in (1, 2):
        assert build(tmp_path / "state", CORPUS, seed) == EXPECTED  # the second time over the first one's files
    lists = {path.name for path in (tmp_path / "state").rglob("*.drop.npy")}
    assert lists == {"000000.drop.npy", "000001.drop.npy"}
    assert not list((tmp_path / "state").glob("*.tmp"))


def test_empty_units_and_no_duplicates(tmp_path: Path) -> None:
    assert build(tmp_path, {WEB0: [], WEB1: [(0, A)], WIKI: [(0, "")]}, 0) == {WEB0: [], WEB1: [], WIKI: []}


def test_a_missing_stage_is_named(tmp_path: Path) -> None:
    write_signatures(tmp_path, [WEB0, WEB1], 0, SPEC, CORPUS[WEB0])
    with pytest.raises(UserError, match=r"web/000001\.ordinals\.npy.*not finished"):
        find_pairs(tmp_path, [WEB0, WEB1], SPEC, 0)


def test_a_stage_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> object:
        yield 0, A
        raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        write_signatures(tmp_path, [WEB0], 0, SPEC, broken())  # type: ignore[arg-type]
    assert list(tmp_path.rglob("*")) == []


def test_hashing_in_parts_gives_the_signature_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for limit in (4096, 7):
        monkeypatch.setattr(minhash, "SHINGLES_AT_ONCE", limit)
        write_signatures(tmp_path / str(limit), [WEB0], 0, SPEC, CORPUS[WEB0])
        files = sorted((tmp_path / str(limit)).rglob("*.sig"))
        contents.append([np.fromfile(path, np.uint8).tolist() for path in files])
    assert contents[0] == contents[1] and len(contents[0]) == SPEC.buckets
