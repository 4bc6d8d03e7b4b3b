"""Decontamination: every shared n-gram is found, nothing else is, and the hit names example, words and place."""

from __future__ import annotations

import gzip
import json
import pickle
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.base.errors import UserError
from corpus.cleaning.decontamination import search
from corpus.cleaning.decontamination.evalsets import find_files, read_examples
from corpus.cleaning.decontamination.search import Decontaminator, Hit, normalise
from corpus.cleaning.decontamination.step import Decontaminate, DecontaminateStep

QUESTION = "If Mara picks 14 baskets of plums each day, and sells 3 of them, how many baskets are left after 2 days?"
SHARED = "mara picks 14 baskets of plums each day and sells 3 of them"


def shared_by_hand(examples: list[str], document: str, n: int) -> set[int]:
    words = normalise(document).split()
    grams = {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    return {
        number
        for number, text in enumerate(examples)
        if (own := normalise(text).split()) and any(tuple(own[i : i + n]) in grams for i in range(len(own) - n + 1))
    }


def test_a_document_with_thirteen_shared_words_goes_and_one_with_twelve_stays() -> None:
    checker = Decontaminator([("set:1", QUESTION)], 13)
    inside = "Exam!\n\u201cMARA  picks 14 baskets\u2014of plums, each day; and sells\u00a03 of them\u201d (she said)."
    assert checker.check(inside) == [Hit("set:1", SHARED, 7)]
    assert checker.check(inside.replace("of them", "of those")) == []
    assert checker.check("On Monday, " + QUESTION.replace("plums", "pears").replace("left", "over") + " Or so.") == []
    assert checker.check("") == [] and checker.check("?! \n") == []


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("a bb c1 \u00e9 DD \u5b57".split()), max_size=12), min_size=1, max_size=4),
    st.lists(st.lists(st.sampled_from("a bb c1 \u00e9 dd \u5b57".split()), max_size=12), max_size=4),
    st.sampled_from([" ", ", ", "\n\n", "\u2014", "\u2019 "]),
)
def test_agrees_with_a_search_by_hand(examples: list[list[str]], documents: list[list[str]], between: str) -> None:
    texts = [" ".join(words) for words in examples]
    asked = [between.join(words) for words in documents]
    if all(len(words) < 3 for words in examples):
        with pytest.raises(UserError, match="no evaluation example has 3 words"):
            Decontaminator([(str(i), text) for i, text in enumerate(texts)], 3)
        return
    checker = Decontaminator([(str(i), text) for i, text in enumerate(texts)], 3)
    assert checker.short_examples == sum(len(words) < 3 for words in examples)
    together = checker.check_many(asked)
    for document, hits in zip(asked, together, strict=True):
        assert {int(hit.example) for hit in hits} == shared_by_hand(texts, document, 3)
        assert checker.check(document) == hits
        for hit in hits:
            assert normalise(document[hit.start :]).startswith(hit.ngram)


def test_long_documents_are_searched_in_pieces_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PIECE_CHARS", 256)
    chance = random.Random(5)
    example = "one two three four five six"
    checker = Decontaminator([("e:1", example)], 6)
    for place in range(0, 700, 3):
        filler = "".join(chance.choice("xyz  ") for _ in range(900))
        document = f"{filler[:place]} {example} {filler[place:]}"
        assert [hit.start for hit in checker.check(document)] == [place + 1]
        assert checker.check(document.replace("six", "sixty")) == []


def test_odd_text_is_searched_too() -> None:
    checker = Decontaminator([("e:1", "\u0130stanbul Stra\u00dfe 12 \u4f60\u597d caf\u00e9 Z\U0001d7d9")], 5)
    assert len(checker.check("x \ud800 \u0130STANBUL stra\u00dfe 12 \u4f60\u597d\u3002CAF\u00c9 z\U0001d7d9")) == 1
    assert checker.check("\ud800\udfff" * 9) == []


def test_hits_of_one_document_are_bounded() -> None:
    checker = Decontaminator([(f"e:{number}", QUESTION) for number in range(100)], 13)
    assert len(checker.check(QUESTION * 50)) == search.MAX_HITS


def test_reads_every_format_and_names_the_record(tmp_path: Path) -> None:
    rows = [{"q": "first question", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}}, {"q": "second", "n": 7}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "c.json").write_text(json.dumps([*rows, "bare text"]))
    pq.write_table(pa.table({"q": ["first question", "second"]}), tmp_path / "d.parquet")
    (tmp_path / "e.txt").write_text("whole\nfile")
    found = find_files([str(tmp_path / "*.json*"), str(tmp_path / "d.parquet"), str(tmp_path / "e.txt")])
    assert [path.name for path in found] == ["a.jsonl", "b.jsonl.gz", "c.json", "d.parquet", "e.txt"]
    whole = {path.name: list(read_examples(path, [])) for path in found}
    assert whole["a.jsonl"] == [("a.jsonl:1", "first question\nred\nblue\nA\nB"), ("a.jsonl:2", "second\n7")]
    assert [text for _, text in whole["b.jsonl.gz"]] == [text for _, text in whole["a.jsonl"]]
    assert whole["c.json"][2] == ("c.json:3", "bare text")
    assert whole["d.parquet"] == [("d.parquet:1", "first question"), ("d.parquet:2", "second")]
    assert whole["e.txt"] == [("e.txt:1", "whole\nfile")]
    chosen = [text for _, text in read_examples(found[0], ["q", "choices.text"])]
    assert chosen == ["first question\nred\nblue", "second"]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file at .*relative to the recipe"):
        DecontaminateStep(against=("absent.jsonl",)).at(tmp_path).function()
    (tmp_path / "a.jsonl").write_text('{"q": "text"}\n')
    with pytest.raises(UserError, match="no record has a field question or text"):
        list(read_examples(tmp_path / "a.jsonl", ["question", "text"]))
    (tmp_path / "bad.jsonl").write_text('{"q": "text"}\n{"q": \n')
    with pytest.raises(UserError, match="record 2 cannot be read"):
        list(read_examples(tmp_path / "bad.jsonl", []))
    (tmp_path / "bad.json").write_text("[1,")
    with pytest.raises(UserError, match="not valid JSON"):
        list(read_examples(tmp_path / "bad.json", []))
    (tmp_path / "a.csv").write_text("q\n")
    with pytest.raises(UserError, match=r"Use \.jsonl"):
        list(read_examples(tmp_path / "a.csv", []))


def test_the_step_drops_and_leaves_the_hits_and_its_key_is_the_files_content(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals/set.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    spec = DecontaminateStep(against=("evals/*.jsonl",), fields=("question",)).at(tmp_path)
    step = pickle.loads(pickle.dumps(spec.function()))  # noqa: S301 - our own bytes
    assert isinstance(step, Decontaminate)
    documents = [Document("Plain text.", "d0", metadata={"text": "x"}), Document(f"See: {QUESTION}", "d1")]
    assert step.batch(documents) == [None, "contaminated"]
    assert [step(document) for document in documents] == [None, "contaminated"]
    assert documents[0].metadata == {"text": "x"}
    first = {"example": "set.jsonl:1", "ngram": "if " + SHARED.rsplit(" ", 1)[0], "start": 5}
    assert documents[1].metadata["contamination"] == [first]
    key = spec.key()
    assert str(tmp_path) not in json.dumps(key)
    (tmp_path / "evals/set.jsonl").rename(tmp_path / "evals/renamed.jsonl")
    assert spec.key() == key
    (tmp_path / "evals/renamed.jsonl").write_text(json.dumps({"question": QUESTION + "!"}) + "\n")
    assert spec.key() != key
