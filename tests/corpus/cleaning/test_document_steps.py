"""Document steps: what must stay, what must go and under which reason, what is rewritten; determinism and pickling."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from typing import Any

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from corpus.base.config import Strict, parse
from corpus.base.errors import UserError
from corpus.cleaning.step import DocumentStep
from corpus.cleaning.steps import CleaningStep

ADAPTER: TypeAdapter[Any] = TypeAdapter(CleaningStep)

PROSE = (
    "The river had been rising since the early morning, and the people of the village watched it with some concern. "
    "They had seen floods before, but none that came so soon after the harvest.\n"
    "An old man said that his father would have moved the cattle to the hill by now. "
    "Nobody answered him, although most of them knew that he was right and that the water would not wait.\n"
    "By noon the bridge was gone. The children were sent to the school, which stands on higher ground, with blankets "
    "and bread for two days.\n"
    "When evening came the rain stopped, and a thin line of light could be seen over the western fields.\n"
)


def run(step: dict[str, Any], text: str, **metadata: Any) -> tuple[str | None, str]:
    """(reason or None, text afterwards) of one step, run from a pickled copy as a worker would."""
    spec = ADAPTER.validate_python(step)
    assert isinstance(spec, DocumentStep)
    function = pickle.loads(pickle.dumps(spec.function()))  # noqa: S301 - our own bytes
    document = Document(text=text, id="x", metadata=metadata)
    return function(document), document.text


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"score": 3}, None),
        ({"score": 2.5}, None),
        ({"score": "2.5"}, None),
        ({"score": 2.49}, "score.below_minimum"),
        ({"score": "-1"}, "score.below_minimum"),
        ({}, "score.missing"),
        ({"score": "n/a"}, "score.missing"),
        ({"score": None}, "score.missing"),
        ({"score": True}, "score.missing"),
        ({"score": float("nan")}, "score.missing"),
        ({"score": [3]}, "score.missing"),
    ],
)
def test_score(metadata: dict[str, Any], reason: str | None) -> None:
    assert run({"step": "score", "minimum": 2.5}, "text", **metadata) == (reason, "text")


def test_score_of_a_nested_or_dotted_field() -> None:
    step = {"step": "score", "field": "meta.int_score", "minimum": 3}
    assert run(step, "t", meta={"int_score": 3})[0] is None
    assert run(step, "t", **{"meta.int_score": 2})[0] == "score.below_minimum"
    assert run(step, "t", meta="none")[0] == "score.missing"


def test_language() -> None:
    step = {"step": "language", "languages": ["en", "DE"]}
    assert run(step, "t", language="EN")[0] is None
    assert run(step, "t", language="de")[0] is None
    assert run(step, "t", language="fr")[0] == "language.other"
    assert run(step, "t")[0] == "language.missing"
    assert run(step, "t", language=7)[0] == "language.missing"


def test_length_counts_characters() -> None:
    step = {"step": "length", "min_chars": 2, "max_chars": 4}
    assert [run(step, text)[0] for text in ["é", "éé", "abcd", "abcde"]] == ["length.short", None, None, "length.long"]


def test_regex_drops_matching_or_not_matching() -> None:
    matching = {"step": "regex", "name": "draft", "pattern": r"(?i)\bdraft only\b"}
    assert run(matching, "This is a Draft Only copy")[0] == "regex.draft"
    assert run(matching, "This is final")[0] is None
    needed = {"step": "regex", "pattern": r"\\documentclass", "drop": "not_matching"}
    assert run(needed, "\\documentclass{article}")[0] is None
    assert run(needed, "plain")[0] == "regex.pattern"


def test_special_tokens_are_dropped_or_stripped() -> None:
    assert run({"step": "special_tokens"}, "user asks <|im_start|> hi")[0] == "special_tokens.leaked"
    assert run({"step": "special_tokens"}, "a <s>struck</s> word, 1 <| 2, |> im_start")[0] is None
    strip = {"step": "special_tokens", "action": "strip"}
    assert run(strip, "a<|endoftext|>b<|im_end|>") == (None, "ab")
    assert run(strip, "a<|im_<|im_end|>end|>b") == (None, "ab"), "stripping must not leave a spelling behind"
    mine = {"step": "special_tokens", "spellings": ["[INST]"]}
    assert run(mine, "[INST] x")[0] == "special_tokens.leaked"
    assert run(mine, "<|endoftext|>")[0] is None


def test_pii_masks_addresses_the_same_way_every_time() -> None:
    text = "write to jane.doe@corp.example.org or j@x.io from 8.8.4.4, not 192.168.0.1; @home is no address"
    masked = "write to email@example.com or email@example.com from 22.214.171.124, not 192.168.0.1; @home is no address"
    spec = ADAPTER.validate_python({"step": "pii"})
    function = spec.function()
    for _ in range(3):
        document = Document(text=text, id="x")
        assert function(document) is None
        assert document.text == masked
    assert run({"step": "pii", "email": None}, text)[1] == text.replace("8.8.4.4", "22.214.171.124")
    assert run({"step": "pii", "ip": None, "email": "<mail>"}, "a@b.cd 8.8.8.8")[1] == "<mail> 8.8.8.8"


@given(st.lists(st.sampled_from(["@", "a", ".", "b.cd", " ", "\n", "x" * 400, "me@here.org", "1.2.3.4"]), max_size=30))
def test_pii_finds_what_the_whole_text_search_finds(pieces: list[str]) -> None:
    from datatrove.pipeline.formatters import PIIFormatter

    # Addresses are limited to 254 characters; beyond that the search around each @ may differ from the plain one.
    text = "".join(pieces).replace("x" * 400, " " * 400)
    whole = PIIFormatter(email_replacement="email@example.com", ip_replacement="22.214.171.124")
    assert run({"step": "pii"}, text)[1] == whole.format(text)


def test_pii_is_fast_on_long_unbroken_runs() -> None:
    hostile = "me@here.org " + "abcd+/" * 200_000
    start = time.process_time()  # work done, whatever else the machine does
    assert run({"step": "pii"}, hostile)[1].startswith("email@example.com abcd")
    assert time.process_time() - start < 5


QUALITY = ["gopher_quality", "gopher_repetition", "c4_quality", "fineweb_quality"]


@pytest.mark.parametrize("step", QUALITY)
def test_quality_filters_keep_prose_and_drop_blank_text(step: str) -> None:
    pytest.importorskip("spacy", reason="datatrove splits words with spaCy")
    assert run({"step": step}, PROSE)[0] is None
    assert run({"step": step}, "")[0] == f"{step}.empty"
    assert run({"step": step}, " \n\t\u2003\n")[0] == f"{step}.empty"


@pytest.mark.parametrize(
    ("step", "text", "reason"),
    [
        ("gopher_quality", "Too short to be of use.", "gopher_quality.short_doc"),
        ("gopher_quality", PROSE.replace(" ", " # "), "gopher_quality.too_many_hashes"),
        ("gopher_quality", "lorem dolor amet elit " * 30, "gopher_quality.enough_stop_words"),
        ("gopher_repetition", PROSE + "Buy it now and be glad of it.\n" * 40, "gopher_repetition.dup_line_frac"),
        ("gopher_repetition", "again and again " * 60, "gopher_repetition.top_2_gram"),
        ("c4_quality", "One sentence only. ", "c4_quality.too_few_sentences"),
        ("c4_quality", PROSE + "if (x) { return; } is code, is it not.", "c4_quality.curly_bracket"),
        ("c4_quality", PROSE + "Here is lorem ipsum for you.", "c4_quality.lorem_ipsum"),
        ("fineweb_quality", "no closing marks here at all\n" * 10, "fineweb_quality.line_punct_ratio"),
        ("fineweb_quality", "Short.\n" * 10, "fineweb_quality.short_line_ratio"),
        ("fineweb_quality", (PROSE.splitlines()[0] + "\n") * 4, "fineweb_quality.char_dup_ratio"),
    ],
)
def test_quality_filters_drop_with_named_reasons(step: str, text: str, reason: str) -> None:
    pytest.importorskip("spacy", reason="datatrove splits words with spaCy")
    assert run({"step": step}, text)[0] == reason


def test_quality_settings_reach_the_filter_and_c4_removes_lines() -> None:
    pytest.importorskip("spacy", reason="datatrove splits words with spaCy")
    short = "A short one that has the right words and to be sure."
    assert run({"step": "gopher_quality", "min_doc_words": 5}, short)[0] is None
    assert run({"step": "gopher_quality", "min_doc_words": None}, short)[0] is None
    with_menu = PROSE + "Home | About | Contact\nThis site uses cookies to work for you.\n"
    assert run({"step": "c4_quality"}, with_menu) == (None, "\n".join(PROSE.splitlines()))
    repeated = {"step": "gopher_repetition", "dup_line_frac": None, "dup_line_char_frac": None}
    assert run({**repeated, "top_n_grams": [], "dup_n_grams": []}, "one line of text\n" * 30)[0] is None


def test_missing_spacy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from datatrove.utils import word_tokenizers

    def absent(*_: object) -> None:
        raise ImportError("spacy")

    monkeypatch.setattr(word_tokenizers, "load_word_tokenizer", absent)
    with pytest.raises(UserError, match="pip install spacy"):
        ADAPTER.validate_python({"step": "c4_quality"}).function()


class _Cleaning(Strict):
    cleaning: list[CleaningStep]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"step": "regex", "pattern": "("}, "not a regular expression"),
        ({"step": "regex", "pattern": "a", "name": "Bad Name"}, "name"),
        ({"step": "length", "min_chars": 5, "max_chars": 4}, "every document would be dropped"),
        ({"step": "score"}, "minimum"),
        ({"step": "score", "minimum": 1, "mininum": 2}, "unknown key"),
        ({"step": "gopher"}, "gopher_quality"),
        ({"step": "special_tokens", "spellings": [""]}, "at least 1 character"),
        ({"step": "decontaminate", "against": []}, "against"),
    ],
)
def test_mistakes_in_a_recipe_name_the_key(step: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(_Cleaning, {"cleaning": [step]}, "r.yaml")
    assert says in caught.value.one_line()
    assert "r.yaml" in caught.value.one_line()


def test_reading_a_recipe_loads_no_heavy_library() -> None:
    heavy = {"datatrove", "numpy", "spacy", "torch"}
    code = f"import sys, corpus.cleaning.steps; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_step_says_which_fields_it_needs() -> None:
    class Looking(dict[str, Any]):
        """A record that notes what is looked at."""

        def __getitem__(self, key: str) -> Any:
            looked.add(key)
            return super().__getitem__(key)

        def get(self, key: str, default: Any = None) -> Any:
            looked.add(key)
            return super().get(key, default)

    settings: list[dict[str, Any]] = [
        {"step": "score", "field": "meta.score", "minimum": 1}, {"step": "language", "languages": ["en"]},
        {"step": "length"}, {"step": "regex", "pattern": "x"}, {"step": "special_tokens"}, {"step": "pii"},
        {"step": "gopher_quality"}, {"step": "gopher_repetition"}, {"step": "c4_quality"}, {"step": "fineweb_quality"},
    ]  # fmt: skip
    needed = {"score": {"meta.score"}, "language": {"language"}}
    for setting in settings:
        spec = ADAPTER.validate_python(setting)
        looked: set[str] = set()
        spec.function()(Document(PROSE, "x", metadata=Looking(meta={"score": 2}, language="en", date=1)))
        assert spec.needs() == needed.get(setting["step"], set())
        assert looked <= {path.split(".")[0] for path in spec.needs()}
    assert ADAPTER.validate_python({"step": "exact_dedup"}).needs() == set()
    assert ADAPTER.validate_python({"step": "decontaminate", "against": ["gsm8k"]}).needs() == set()
