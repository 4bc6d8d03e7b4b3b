"""Decontamination: every shared n-gram is found, nothing else is, and the hit names example, words and place."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import unicodedata
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
from corpus.cleaning.decontamination.search import Decontaminator, Hit
from corpus.cleaning.decontamination.step import Decontaminate, DecontaminateStep
from corpus.cleaning.decontamination.words import folded, normalise

QUESTION = "If Mara picks 14 baskets of plums each day, and sells 3 of them, how many baskets are left after 2 days?"
SHARED = "mara picks 14 baskets of plums each day and sells 3 of them"


def decontaminator(texts: dict[str, str], ngram: int, shortest: int | None = None) -> Decontaminator:
    """One over examples of one text each; shorter texts than ``ngram`` are not looked for unless ``shortest`` says."""
    return Decontaminator(((name, [text]) for name, text in texts.items()), ngram, shortest or ngram)


def length(words: list[str]) -> float:
    """In words; here all ideographs, of which two make one, are written as words of their own."""
    return sum(0.5 if word >= "\u4e00" else 1 for word in words)


def shared_by_hand(examples: list[str], document: str, n: int, shortest: int) -> set[int]:
    words = normalise(document).split()

    def holds(run: list[str]) -> bool:
        return any(words[i : i + len(run)] == run for i in range(len(words) - len(run) + 1))

    found = set()
    for number, text in enumerate(examples):
        own = normalise(text).split()
        runs = [own[i:j] for i in range(len(own)) for j in range(i + 1, len(own) + 1) if length(own[i:j]) >= n]
        if not runs and own and length(own) >= shortest:
            runs = [own]
        if any(holds(run) for run in runs):
            found.add(number)
    return found


def test_a_document_with_thirteen_shared_words_goes_and_one_with_twelve_stays() -> None:
    checker = decontaminator({"set:1": QUESTION}, 13)
    inside = "Exam!\n\u201cMARA  picks 14 baskets\u2014of plums, each day; and sells\u00a03 of them\u201d (she said)."
    assert checker.check(inside) == [Hit("set:1", SHARED, 7)]
    assert checker.check(inside.replace("of them", "of those")) == []
    assert checker.check("On Monday, " + QUESTION.replace("plums", "pears").replace("left", "over") + " Or so.") == []
    assert checker.check("") == [] and checker.check("?! \n") == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("a bb c1 \u00e9 DD \u5b57 \u56fd".split()), max_size=12), min_size=1, max_size=4),
    st.lists(
        st.lists(st.sampled_from("a bb c1 \u00e9 e\u0301 dd \u5b57\u56fd s\u00df \ufb01".split()), max_size=12),
        max_size=4,
    ),
    st.sampled_from([" ", ", ", "\n\n", "\u2014", "\u2019 "]),
    st.sampled_from([2, 4]),
)
def test_agrees_with_a_search_by_hand(
    examples: list[list[str]], documents: list[list[str]], between: str, shortest: int
) -> None:
    texts = [" ".join(words) for words in examples]
    asked = [between.join(words) for words in documents]
    if all(length(words) < shortest for words in examples):
        with pytest.raises(UserError, match=f"no evaluation example has a text of {shortest} words"):
            decontaminator({str(i): text for i, text in enumerate(texts)}, 4, shortest)
        return
    checker = decontaminator({str(i): text for i, text in enumerate(texts)}, 4, shortest)
    assert checker.detectable == [length(words) >= shortest for words in examples]
    together = checker.check_many(asked)
    for document, hits in zip(asked, together, strict=True):
        assert {int(hit.example) for hit in hits} == shared_by_hand(texts, document, 4, shortest)
        assert checker.check(document) == hits
        for hit in hits:
            assert normalise(document[hit.start :]).startswith(hit.ngram)


def test_long_documents_are_searched_in_pieces_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PIECE_CHARS", 256)
    chance = random.Random(5)
    example = "one two three four five six"
    checker = decontaminator({"e:1": example}, 6)
    for place in range(0, 700, 3):
        filler = "".join(chance.choice("xyz  ") for _ in range(900))
        document = f"{filler[:place]} {example} {filler[place:]}"
        assert [hit.start for hit in checker.check(document)] == [place + 1]
        assert checker.check(document.replace("six", "sixty")) == []
        # Characters that take no byte of their own, and those that take several, before it and in it.
        odd = filler.replace("x", "\ufb01\u00ad").replace("y", "\u4e2d")
        hidden = example.replace("three", "thr\u200bee")
        hard = f"{odd[:place]} {hidden} {odd[place:]}"
        assert [hard[hit.start :][:7] for hit in checker.check(hard)] == ["one two"]
        assert checker.check(hard.replace("six", "sixty")) == []


SAME = {
    "composed and decomposed": (
        "Một cửa hàng bán được bảy mươi hai chiếc bánh",
        "NFD",
    ),
    "korean": (
        "한 가게가 아침에 일흔두 개의 빵을 팔고 오후에 절반을 더 팔았다",
        "NFD",
    ),
    "hindi": (
        "एक दुकान ने सुबह बहत्तर रोटियाँ बेचीं और शाम को लड़के",
        "NFD",
    ),
    "arabic": (
        "باع أحمد اثنين وسبعين خبزا في الصباح ونصفها في المساء",
        "NFD",
    ),
    "compatibility": ("the finest of the office files affects every single one of us \u00bd", "ﬁ full width"),
    "case": ("Die STRASSE ist große Straße in ISPARTA und İstanbul oder wo auch immer", "case"),
    "unseen": (
        "extraordinary questions about exemplary mathematicians frequently require considerable explanation nowadays",
        "unseen",
    ),
}
"""Text, and how another file may spell it."""


def spelled(text: str, way: str) -> list[str]:
    if way == "NFD":
        forms = ("NFC", "NFD", "NFKC", "NFKD")
        joined = "\u200d".join(text)  # a joiner between all letters
        return [*(unicodedata.normalize(form, text) for form in forms), joined]
    if way == "case":
        turkish = text.replace("ISPARTA", "\u0131sparta").replace("\u0130", "i\u0307")
        return [text.lower(), text.upper(), text.replace("SS", "\u1e9e"), turkish, text.swapcase()]
    if way == "unseen":
        marks = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u034f\u0301\ufe0f\u180e\u202a"
        return [*(text[:9] + mark + text[9:] for mark in marks), "".join(f"{char}\u0336" for char in text)]
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)
    ligatures = text.replace("ffi", "\ufb03").replace("fi", "\ufb01").replace("ff", "\ufb00")
    return [
        wide,
        ligatures,
        text.replace("\u00bd", "1\u20442"),
        text.replace(" ", "\u3000"),
        text.replace(" ", "\u00a0"),
    ]


@pytest.mark.parametrize("name", SAME)
def test_what_reads_the_same_is_the_same(name: str) -> None:
    text, way = SAME[name]
    for example in (text, *spelled(text, way)):
        checker = decontaminator({"e:1": example}, 13, 8)
        for document in (text, *spelled(text, way)):
            [hit] = checker.check(f"Xy \u5b57 {document} zz")
            assert hit.start >= 3 and normalise(document).startswith(normalise(hit.ngram))
            assert checker.check(f"Xy {document[: len(document) // 2]} zz") == []


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("商店早上卖出七十二个面包下午卖出一半一共卖出多少个", "你好"),
        ("お店は朝にパンを七十二個売りましたが全部で何個売りましたか", "ハロー"),
        ("ร้านขายขนมปังเจ็ดสิบสองชิ้นในตอนเช้าและครึ่งหนึ่งในตอนบ่าย", "สวัสดี"),
        ("ហាងបានលក់នំប័ងចិតសិបពីរដុំនៅពេលព្រឹកនិងពាក់កណ្តាល", "សួស្ដី"),
    ],
)  # fmt: skip
def test_scripts_without_spaces_are_searched_by_characters(text: str, other: str) -> None:
    checker = decontaminator({"e:1": text}, 13, 8)
    assert checker.detectable == [True]
    for before, after in ((other * 30, other * 40), ("Quiz: ", "?"), ("", "")):
        [hit] = checker.check(before + text + after)
        assert hit.start == len(before)
        assert checker.check(before + text[: len(text) // 3] + after) == []
    assert len(checker.check(f"{text[:9]}\u3002\u200b {text[9:]}")) == 1
    assert checker.check(other * 100) == [] and checker.check("plain " * 100) == []
    assert decontaminator({"e:1": text, "e:2": other}, 13, 8).detectable == [True, False]


@settings(max_examples=100, deadline=None)
@given(
    st.text(
        st.sampled_from("aB1 \n\u00e9\u0301\u200b\u5b57\ufb01\u00bd\ud55c\u0e01\u0e31\ud800\u00df\U0001d7d9"),
        max_size=300,
    )
)
def test_bytes_of_a_text_are_those_of_its_normal_form(text: str) -> None:
    """However many characters are special: both ways to expand them give the same words, at their places."""
    for padding in ("", "x " * 30_000):
        content = folded(text + padding)
        words = content.values.tobytes().replace(b"\0", b" ").split()
        assert words == folded(normalise(text + padding)).values.tobytes().replace(b"\0", b" ").split()
        assert words == [folded(word).values.tobytes().strip(b"\0") for word in normalise(text + padding).split()]
        for character in range(len(text)):
            byte = content.byte(character)
            if normalise(text[character]):
                assert content.character(byte) == character


def test_odd_text_is_searched_too() -> None:
    checker = decontaminator({"e:1": "\u0130stanbul Stra\u00dfe 12 \u4f60\u597d caf\u00e9 Z\U0001d7d9"}, 5)
    assert len(checker.check("x \ud800 \u0130STANBUL stra\u00dfe 12 \u4f60\u597d\u3002CAF\u00c9 z\U0001d7d9")) == 1
    assert checker.check("\ud800\udfff" * 9) == []


def test_hits_of_one_document_are_bounded() -> None:
    checker = decontaminator({f"e:{number}": QUESTION for number in range(100)}, 13)
    assert len(checker.check(QUESTION * 50)) == search.MAX_HITS


def test_texts_are_compared_each_for_itself_and_short_ones_whole() -> None:
    question, choices = "Which of these do plants need most to live", ["light", "heat", "salt", "wind"]
    page = f"{question}? A {choices[0]} B {choices[1]} C {choices[2]} D {choices[3]}"
    records = [("arc:1", [question, *choices]), ("arc:2", ["Why is the sky blue", "It scatters light"])]
    checker = Decontaminator(records, 13, 8)
    assert checker.detectable == [True, False]
    assert [hit.example for hit in checker.check(f"Quiz! {page}.")] == ["arc:1"]
    assert checker.check(page.replace("most", "least")) == []
    [counted] = checker.sets()
    assert counted.model_dump() == {"name": "arc", "examples": 2, "detectable": 1, "undetectable": 1}
    with pytest.raises(UserError, match="no evaluation example has a text of 13 words"):
        Decontaminator(records, 13, 13)


def test_reads_every_format_and_names_the_record(tmp_path: Path) -> None:
    rows = [
        {"q": "first question", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}},
        {"q": "the second", "n": 7},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "c.json").write_text(json.dumps([*rows, "bare text"]))
    pq.write_table(pa.table({"q": ["first question", "the second"]}), tmp_path / "d.parquet")
    (tmp_path / "e.txt").write_text("whole\nfile")
    found = find_files([str(tmp_path / "*.json*"), str(tmp_path / "d.parquet"), str(tmp_path / "e.txt")])
    assert [path.name for path in found] == ["a.jsonl", "b.jsonl.gz", "c.json", "d.parquet", "e.txt"]
    whole = {path.name: list(read_examples(path, [])) for path in found}
    assert whole["a.jsonl"] == [("a.jsonl:1", ["first question"]), ("a.jsonl:2", ["the second"])]
    assert [text for _, text in whole["b.jsonl.gz"]] == [text for _, text in whole["a.jsonl"]]
    assert whole["c.json"][2] == ("c.json:3", ["bare text"])
    assert whole["d.parquet"] == [("d.parquet:1", ["first question"]), ("d.parquet:2", ["the second"])]
    assert whole["e.txt"] == [("e.txt:1", ["whole\nfile"])]
    chosen = [texts for _, texts in read_examples(found[0], ["q", "choices.text", "n"])]
    assert chosen == [["first question", "red", "blue"], ["the second", "7"]]


def test_ids_labels_and_addresses_are_left_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    record = {
        "id": "set one two three four five six seven eight", "question_id": "a b", "questionId": "a b",
        "url": "see here", "label": "the right one", "answerKey": "B or C", "split": "test of all", "n": 7,
        "page": "http://a.org/b-c-d-e-f-g-h-i", "d": True,
        "question": {"stem": "Is this paid valid text", "ids": ["x y"]}, "grid": "a grid id", "zh": "\u4f60\u597d",
    }  # fmt: skip
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    [(_, texts)] = read_examples(tmp_path / "a.jsonl", [])
    assert texts == ["Is this paid valid text", "a grid id", "\u4f60\u597d"]
    [(_, texts)] = read_examples(tmp_path / "a.jsonl", ["id", "n", "question.ids"])
    assert texts == ["set one two three four five six seven eight", "7", "x y"]


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
