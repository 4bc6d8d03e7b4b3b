"""What a tokenizer is tried for: engines that agree, text that stays text, and text that comes back."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.base.errors import UserError
from corpus.tokenization import check as seam
from corpus.tokenization.check import check_tokenizer, choose_engine, load_engine, special_table
from corpus.tokenization.engine import encode_rows
from corpus.tokenization.probes import TRICKY
from tests.corpus.tokenization.variants import byte_level, sentencepiece, with_token, written


@pytest.fixture(autouse=True)
def few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan of characters takes most of a check's time; what it finds is tested on its own."""
    monkeypatch.setattr(seam, "SCANNED", ((0, 0x800),))


def metaspace(scheme: str) -> dict[str, Any]:
    """The later way to write a SentencePiece tokenizer."""
    parts = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": True}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, parts]}
    return sentencepiece() | {"normalizer": None, "pre_tokenizer": parts, "decoder": decoder}


def model(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The tokenizer with its model changed."""
    return data | {"model": data["model"] | changes}


def normalizing(kind: str, **settings: Any) -> dict[str, Any]:
    """A byte-level tokenizer with a normalizer."""
    return byte_level() | {"normalizer": {"type": kind, **settings}}


def test_the_fast_engine_is_the_default(tmp_path: Path) -> None:
    path = written(tmp_path, byte_level())
    assert choose_engine(path, None) == ("gigatoken", [], None)
    assert choose_engine(path, "tokenizers") == ("tokenizers", [], None)


@pytest.mark.parametrize(
    "data",
    [
        byte_level(),
        byte_level() | {"decoder": None},
        byte_level() | {"pre_tokenizer": byte_level()["pre_tokenizer"] | {"add_prefix_space": True}},
        model(byte_level(), ignore_merges=True),
        with_token(with_token(byte_level(), "  "), "\n\n", normalized=True),
        with_token(byte_level(), "rain"),
        normalizing("NFC"), normalizing("NFKC"), normalizing("Lowercase"), normalizing("StripAccents"),
        normalizing("Replace", pattern={"Regex": " +"}, content=" "), normalizing("Prepend", prepend=" "),
        with_token(normalizing("Lowercase"), "RAIN"), with_token(normalizing("Lowercase"), "RAIN", normalized=True),
        with_token(byte_level(), "rain", lstrip=True, rstrip=True),
        sentencepiece(), sentencepiece() | {"decoder": None},
        with_token(sentencepiece(), "rain"), with_token(sentencepiece(), "  ", normalized=True),
        metaspace("always"), metaspace("first"), metaspace("never"), with_token(metaspace("always"), "<x>"),
    ],
)  # fmt: skip
def test_what_keeps_text_passes(tmp_path: Path, data: dict[str, Any]) -> None:
    """Normalizers, dummy prefixes and an added token's own spaces are declared; a missing decoder is no loss."""
    assert check_tokenizer(written(tmp_path, data)).lost is None


def without(data: dict[str, Any], letter: str) -> dict[str, Any]:
    """A vocabulary without a letter and what holds it."""
    vocab = {name: number for name, number in data["model"]["vocab"].items() if letter not in name}
    merges = [pair for pair in data["model"]["merges"] if letter not in "".join(pair)]
    return model(data, vocab={name: number for number, name in enumerate(vocab)}, merges=merges)


def word_pieces() -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "the": 3}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]"])
    return dict(json.loads(tokenizer.to_str()))


def unigram() -> dict[str, Any]:
    from tokenizers import Tokenizer, models

    pieces = [("<unk>", 0.0), *((chr(code), -2.0) for code in range(32, 127))]
    return dict(json.loads(Tokenizer(models.Unigram(pieces, unk_id=0)).to_str()))


LOSSY = {
    "a byte is missing": without(byte_level(), "\u00c3"),
    "a letter is missing": without(byte_level(), "e"),
    "no alphabet, no fallback": model(without(sentencepiece(), "0x"), byte_fallback=False, unk_token=None),
    "unknown characters": unigram(),
    "words": word_pieces(),
    "spaces": byte_level() | {"pre_tokenizer": {"type": "Whitespace"}},
    "removed": byte_level() | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[0-9]"}, "behavior": "Removed", "invert": False},
        byte_level()["pre_tokenizer"],
    ]}},
}  # fmt: skip


@pytest.mark.parametrize("kind", LOSSY)
def test_a_tokenizer_that_loses_text_is_refused_unless_allowed(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "tok", LOSSY[kind])
    with pytest.raises(UserError, match=r"^tokenizer tok: this tokenizer loses text: of .* only .* comes back") as told:
        choose_engine(path, None)
    assert "\n" not in told.value.one_line() and "allow_lossy" in told.value.one_line()
    chosen = choose_engine(path, None, allow_lossy=True)
    assert chosen.lost and any("loses text, as the recipe allows" in note for note in chosen.notes)


def test_where_loss_is_allowed_the_unknown_token_may_stand_in_text(tmp_path: Path) -> None:
    assert not special_table(written(tmp_path, word_pieces()), 4).any()


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip", "normalized"])
@pytest.mark.parametrize("content", ["rain", "<x>", " ", "12", "\n", "caf\u00e9"])
@pytest.mark.parametrize("family", [byte_level, sentencepiece])
def test_every_added_token_is_tried(tmp_path: Path, family: Any, content: str, flag: str) -> None:
    path = written(tmp_path, with_token(family(), content, **{flag: True}))
    try:
        chosen = choose_engine(path, None)
    except UserError as error:
        assert "loses text" in str(error)
        return
    texts = [f"{left}{content}{right}" for left in ("", "x", "1", " ", "\n", "\u00e9", "the ", "b  ", content, "_")
             for right in ("", "y", "2", " ", "\n", "\u6570", " road", "  w", content, ",")]  # fmt: skip
    engine, reference = load_engine(path, chosen.engine), load_engine(path, "tokenizers")
    for text, ours, theirs in zip(texts, encode_rows(engine, texts), encode_rows(reference, texts), strict=True):
        assert np.array_equal(ours, theirs), text
    if flag == "single_word" and content == "rain":
        assert chosen.engine == "tokenizers" and "gigatoken cannot be used" in chosen.notes[0]


def test_added_tokens_keep_their_ids_when_special_ones_are_taken_out(tmp_path: Path) -> None:
    """As in Qwen's files: tokens that are text are numbered on from special ones."""
    data = with_token(with_token(byte_level(), "<|im_end|>", special=True), "<tool_call>")
    path = written(tmp_path, data)
    wanted = data["added_tokens"][-1]["id"]
    assert wanted == data["added_tokens"][-2]["id"] + 1
    assert choose_engine(path, None).notes == []
    for name in ("gigatoken", "tokenizers"):
        ids, _ = load_engine(path, name).encode_batch(["a <tool_call> <|im_end|>"])
        assert wanted in ids and wanted - 1 not in ids


@pytest.mark.parametrize("wrong", [5, 1000])
def test_ids_that_the_library_does_not_give_are_refused(tmp_path: Path, wrong: int) -> None:
    path = written(tmp_path, with_token(byte_level(), "<x>", id=wrong))
    with pytest.raises(UserError, match=rf"'<x>' has the id {wrong} in the file, but 320 for tokenizers"):
        choose_engine(path, None)


def test_what_is_random_or_cuts_is_off_with_a_note(tmp_path: Path) -> None:
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "<s>"}  # fmt: skip
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    data = model(byte_level(), dropout=0.5) | {
        "padding": padding, "truncation": truncation, "post_processor": template,
    }  # fmt: skip
    path, plain = written(tmp_path / "a", data), written(tmp_path / "b", byte_level())
    chosen = choose_engine(path, None)
    assert chosen.engine == "gigatoken"
    notes = "\n".join(chosen.notes)
    assert notes.count("switched off for this build") == 3
    assert all(word in notes for word in ("dropout of 0.5", "truncation to 3", "padding"))
    right = encode_rows(load_engine(plain, "tokenizers"), TRICKY)
    for name in ("gigatoken", "tokenizers"):
        for _ in range(2):
            rows = encode_rows(load_engine(path, name), TRICKY)
            assert all(map(np.array_equal, rows, right))


def test_what_a_normalizer_changes_is_told(tmp_path: Path) -> None:
    notes = choose_engine(written(tmp_path, normalizing("Lowercase")), None).notes
    assert any("normalizer rewrites text" in note and "The caf" in note and "the caf" in note for note in notes)
    assert not any("rewrites" in note for note in choose_engine(written(tmp_path / "b", sentencepiece()), None).notes)


def test_an_unsupported_tokenizer_falls_back_with_a_note_and_refuses_when_forced(tmp_path: Path) -> None:
    path = written(tmp_path, normalizing("NFD"))
    chosen = choose_engine(path, None)
    assert chosen.engine == "tokenizers" and "gigatoken cannot be used" in chosen.notes[-1]
    with pytest.raises(UserError, match="--engine tokenizers"):
        choose_engine(path, "gigatoken")


@pytest.mark.parametrize("text", ["{}", "[1]", '{"model": {"type": "BPE"}}', "not json"])
def test_what_is_no_tokenizer_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"is not a tokenizer\.json"):
        choose_engine(path, None)


def test_a_tokenizer_that_makes_control_of_text_is_refused(tmp_path: Path) -> None:
    special = with_token(byte_level(), "rain", id=byte_level()["model"]["vocab"]["rain"], special=True)
    with pytest.raises(UserError, match="to a special token"):
        choose_engine(written(tmp_path, special), "tokenizers")


def test_the_finding_is_kept_until_versions_or_the_check_change(tmp_path: Path) -> None:
    path = written(tmp_path, byte_level())
    found = check_tokenizer(path)
    assert found.refusal is None
    kept = json.loads(path.with_name(seam.CHECK_FILE).read_text())
    assert set(kept["versions"]) == {"format", "gigatoken", "tokenizers"}
    kept["refusal"] = "kept"
    path.with_name(seam.CHECK_FILE).write_text(json.dumps(kept))
    assert check_tokenizer(path).refusal == "kept"
    kept["versions"]["format"] -= 1
    path.with_name(seam.CHECK_FILE).write_text(json.dumps(kept))
    assert check_tokenizer(path) == found


def test_characters_that_engines_split_differently_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = check_tokenizer(written(tmp_path, byte_level()))
    assert found.refusal is None and found.lost is None and len(found.odd) < 100


@st.composite
def variants(draw: st.DrawFn) -> dict[str, Any]:
    """Tokenizers bent in several places at once."""
    data = draw(st.sampled_from([byte_level(), sentencepiece(), metaspace("always"), metaspace("first")]))
    if data["normalizer"] is None:
        data |= {"normalizer": draw(st.sampled_from([None, None, {"type": "NFC"}, {"type": "Lowercase"}]))}
    if data["pre_tokenizer"] and data["pre_tokenizer"]["type"] == "ByteLevel":
        data |= {"pre_tokenizer": data["pre_tokenizer"] | draw(st.sampled_from(
            [{}, {}, {"add_prefix_space": True}, {"use_regex": False}]))}  # fmt: skip
    if draw(st.booleans()):
        bent = [{"ignore_merges": True}, {"fuse_unk": False}, {"dropout": 0.4}, {"end_of_word_suffix": "</w>"}]
        data = model(data, **draw(st.sampled_from(bent)))
    contents = [
        "rain",
        "ain",
        "<x>",
        "<x><y>",
        " ",
        "  ",
        "\n",
        "RAIN",
        " rain",
        "rain ",
        "12",
        "e\u0301",
        "road window",
    ]
    for content in draw(st.lists(st.sampled_from(contents), unique=True, max_size=3)):
        flags = draw(st.sets(st.sampled_from(["single_word", "lstrip", "rstrip", "normalized", "special"]), max_size=2))
        data = with_token(data, content, **dict.fromkeys(flags, True))
    return data


PIECES = st.sampled_from(
    [*TRICKY[1:6], *"rain|brain|the road| window|<x>|<x><y>|RAIN|12| |  |\n|x|1|'ll|.|<s>|<0x41>".split("|"),
     "\u00e9", "e\u0301", "\u6570", "\u2581"]
)  # fmt: skip


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=variants(), texts=st.lists(st.lists(PIECES, max_size=9).map("".join), min_size=60, max_size=60))
def test_whatever_is_chosen_gives_the_reference_ids(data: dict[str, Any], texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), data)
        try:
            chosen = choose_engine(path, None)
        except UserError:
            return
        ours, theirs = load_engine(path, chosen.engine), load_engine(path, "tokenizers")
        for text, row, right in zip(texts, encode_rows(ours, texts), encode_rows(theirs, texts), strict=True):
            assert np.array_equal(row, right), (text, chosen)
