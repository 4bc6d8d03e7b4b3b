"""MinHash near-deduplication: near copies go, different texts stay, and nothing depends on the order of work."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

from corpus.cleaning.comparisons import minhash
from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.comparisons.keys import write_keys
from corpus.cleaning.comparisons.steps import MinhashStep
from tests.corpus.cleaning.comparing import Corpus, collect, compare, dropped

SPEC = MinhashStep(ngram=3, buckets=12, hashes_per_bucket=4)
WEB0, WEB1, WIKI = UnitRef("web", 0), UnitRef("web", 1), UnitRef("wiki", 0)


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
    """Collect and compare, units and jobs in a random order; ordinals dropped per unit."""
    collect(folder, corpus, SPEC, random.Random(seed).sample(list(corpus), len(corpus)))
    compare(folder, list(corpus), SPEC, seed=seed)
    return {ref: list(found) for ref, found in dropped(folder, corpus, SPEC).items()}


def test_near_copies_go_the_earliest_and_the_different_stay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert build(tmp_path / "a", CORPUS, 0) == EXPECTED
    assert capfd.readouterr() == ("", ""), "a stage must not write over the builder's progress display"
    assert dropped(tmp_path / "a", CORPUS, SPEC)[WIKI] == {2: (WEB0, 4), 8: (WEB0, 1)}
    turned = {WIKI: CORPUS[WIKI], WEB0: CORPUS[WEB0], WEB1: CORPUS[WEB1]}
    assert build(tmp_path / "b", turned, 0) == {WIKI: [], WEB0: [1, 4], WEB1: [3, 5]}


def test_empty_units_and_no_duplicates(tmp_path: Path) -> None:
    assert build(tmp_path, {WEB0: [], WEB1: [(0, A)], WIKI: [(0, "")]}, 0) == {WEB0: [], WEB1: [], WIKI: []}


def test_a_stage_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[int, bytes]]:
        yield 0, bytes(16)
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        write_keys(tmp_path, WEB0, broken())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_keys_are_those_of_datatroves_signature() -> None:
    config = MinhashConfig(n_grams=3, num_buckets=12, hashes_per_bucket=4)
    step = MinhashDedupSignature(".", config, "eng")
    step.word_tokenizer = minhash._Spaces("")
    for text in (A, near(A, 1)):
        bands = np.array(step.get_signature(step.get_shingles(text)), "<u8")
        expected = [hashlib.blake2b(band.tobytes(), digest_size=16).digest() for band in bands]
        assert SPEC.keys()(text) == b"".join(expected)
    assert SPEC.keys()("short text") is None


def test_hashing_in_parts_gives_the_signature_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SPEC.keys()(A)
    monkeypatch.setattr(minhash, "SHINGLES_AT_ONCE", 7)
    assert SPEC.keys()(A) == whole is not None
