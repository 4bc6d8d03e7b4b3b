"""What a tokenizer is tried for before any document is encoded, and the engine that follows from it.

It must read as the library reads it, keep text (or be allowed not to), and never turn text into special tokens. The
fast engine is used only where it gives the reference's ids on every built-in text. Each finding is made once per
tokenizer and pair of versions, and kept beside tokenizer.json.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.base.files import write_json
from corpus.tokenization.engine import Engine, FastEngine, ReferenceEngine, encode_rows
from corpus.tokenization.lossless import WORD_START, round_trips
from corpus.tokenization.plain import added_tokens, plain_tokenizer, special_ids, switched_off
from corpus.tokenization.probes import probe_texts

CHECK_FILE = "engine-check.json"
CHECK_FORMAT = 2
"""Raised whenever more is tried, so that earlier findings are made again."""
SCANNED = ((0, 0x20000), (0x2A6D0, 0x34000), (0xE0000, 0xE0200))
"""Code points looked at: planes 0 and 1, the ends of the ideographs, and the tags."""
SCAN_GROUP = 64
MOST_ODD = 2000
"""More characters than this on which the engines differ, or an ASCII one, and the fast one cannot be used."""
SHOWN = 60
"""Characters of a text that messages quote."""


@dataclass(frozen=True)
class TokenizerCheck:
    """What is known of one tokenizer, and of the fast engine on it."""

    odd: str
    """Characters whose texts go to the reference."""
    refusal: str | None
    """Why the fast engine cannot be used; None when it can."""
    leak: str | None
    """A text that the tokenizer itself turns into a special token; None when it has none."""
    specials: list[int]
    """Ids of the special tokens, which no text may give."""
    lost: tuple[str, str] | None
    """A text of which something is lost, and what decoding gives back; None when none is."""
    notes: list[str]
    """What a user should know: what is switched off, what the normalizer changes."""


class Choice(NamedTuple):
    """The engine for a tokenizer, and what was found on the way."""

    engine: str
    notes: list[str]
    """Whole sentences for the user."""
    lost: str | None
    """A text of which this tokenizer loses something, where that is allowed; None when none was found."""


@functools.lru_cache(maxsize=4)
def load_engine(path: Path, name: str) -> Engine:
    """The named engine for a tokenizer.json, kept for the life of the process (and of those forked from it)."""
    text = path.read_text(encoding="utf-8")
    if name == FastEngine.name:
        return FastEngine(text, check_tokenizer(path).odd, lambda: load_engine(path, ReferenceEngine.name))
    return ReferenceEngine(text)


@functools.lru_cache(maxsize=2)
def special_table(path: Path, vocab_size: int) -> NDArray[np.bool_]:
    """Truth table over ids: is it a special token?"""
    table = np.zeros(vocab_size, np.bool_)
    table[check_tokenizer(path).specials] = True
    return table


def choose_engine(path: Path, asked: str | None, *, allow_lossy: bool = False, name: str | None = None) -> Choice:
    """The engine to use for a tokenizer.json, and what the user should know of it; errors call it ``name``.

    ``asked`` forces one; UserError is raised when that is the fast one and it fails its check, for a tokenizer whose
    own vocabulary turns ordinary text into special tokens, and unless ``allow_lossy`` for one that loses text.
    """
    where = f"tokenizer {name or path.parent.name}"
    check = check_tokenizer(path, where)
    if check.leak is not None:
        raise UserError(
            f"this tokenizer encodes the ordinary text {_shown(check.leak)} to a special token",
            where=where, fix="Text must never become control: use a byte-level BPE tokenizer.",
        )  # fmt: skip
    notes, lost = list(check.notes), None
    if check.lost is not None:
        lost, back = check.lost
        if not allow_lossy:
            raise UserError(
                f"this tokenizer loses text: of {_shown(lost)} only {_shown(back)} comes back",
                where=where, fix="Use one that keeps all text, or allow it with 'tokenizer.allow_lossy: true'.",
            )  # fmt: skip
        notes.append(f"this tokenizer loses text, as the recipe allows: of {_shown(lost)} only {_shown(back)} is left")
    if asked == ReferenceEngine.name:
        return Choice(ReferenceEngine.name, notes, lost)
    if check.refusal is None:
        return Choice(FastEngine.name, notes, lost)
    if asked == FastEngine.name:
        raise UserError(
            f"the {FastEngine.name} engine cannot be used with this tokenizer: {check.refusal}",
            where=where, fix=f"Use --engine {ReferenceEngine.name}.",
        )  # fmt: skip
    notes.append(
        f"{FastEngine.name} cannot be used with this tokenizer ({check.refusal}); "
        f"using {ReferenceEngine.name}, which gives the same ids more slowly"
    )
    return Choice(ReferenceEngine.name, notes, lost)


def check_tokenizer(path: Path, where: str = "tokenizer") -> TokenizerCheck:
    """Try a tokenizer.json on the built-in texts, or read what was found before.

    Raises UserError (at ``where``) when `tokenizers` cannot read it, gives its added tokens other ids than the file, or
    fails on a text.
    """
    facts = path.with_name(CHECK_FILE)
    made_with = {"format": CHECK_FORMAT} | {n: metadata.version(n) for n in (FastEngine.name, ReferenceEngine.name)}
    if facts.is_file():
        known = json.loads(facts.read_bytes())
        if known.pop("versions", None) == made_with:
            return TokenizerCheck(**known | {"lost": known["lost"] and tuple(known["lost"])})
    check = _tried(path.read_text(encoding="utf-8"), where)
    with contextlib.suppress(UserError):  # a folder that only others may write to: it is found again next time
        write_json(facts, {"versions": made_with, **asdict(check)})
    return check


def _tried(text: str, where: str) -> TokenizerCheck:
    reference = _reference(text, where)
    built_in = probe_texts([token["content"] for token in added_tokens(text)], _vocabulary(reference))
    groups = _scanned()
    texts = [*built_in, *map(_probe, groups)]
    try:
        rows = encode_rows(reference, texts)
        found = round_trips(reference.tokenizer, plain_tokenizer(text), texts, rows)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust code is no Exception
        raise UserError(f"this tokenizer cannot encode every text: {_one_line(error)}", where=where) from None
    specials = set(special_ids(text))
    if found.lost is not None:
        specials -= _unknown_id(text)  # where losing text is allowed, it stands for what was lost
    barred = sorted(specials)
    at = np.flatnonzero(np.isin(np.concatenate(rows), barred))
    leak = texts[int(np.searchsorted(np.cumsum([len(row) for row in rows]), at[0], side="right"))] if len(at) else None
    odd, refusal = "", None
    try:
        fast = FastEngine(text)
        different = [
            place for place, row in enumerate(encode_rows(fast, texts)) if not np.array_equal(row, rows[place])
        ]
        if different and different[0] < len(built_in):
            refusal = f"it gives other ids for {_shown(texts[different[0]])}"
        else:
            odd = _odd_characters(fast, reference, [groups[place - len(built_in)] for place in different])
            if len(odd) > MOST_ODD or any(map(str.isascii, odd)):
                odd, refusal = "", f"it splits text differently around {len(odd)} characters"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a refusal may be of any type; a panic in Rust code is no Exception
        refusal = _one_line(error)
    notes = [f"switched off for this build: {thing}" for thing in switched_off(text)]
    if found.changed is not None:
        before, after = map(_shown, found.changed)
        notes.append(f"this tokenizer's normalizer rewrites text before it is encoded: {before} becomes {after}")
    lost = None if found.lost is None else (found.lost.text, found.lost.back)
    return TokenizerCheck(odd, refusal, leak, barred, lost, notes)


def _reference(text: str, where: str) -> ReferenceEngine:
    """The reference engine for a tokenizer that it reads as it is written."""
    from tokenizers import Tokenizer

    try:
        as_written, reference = Tokenizer.from_str(text), ReferenceEngine(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise UserError(f"is not a tokenizer.json that tokenizers reads: {_one_line(error)}", where=where) from None
    for token in added_tokens(text):
        given = as_written.token_to_id(token["content"])
        if given != token["id"]:
            raise UserError(
                f"the added token {_shown(token['content'])} has the id {token['id']} in the file, but {given} for "
                "tokenizers, which numbers added tokens on from the vocabulary",
                where=where, fix="Mend its id, or save the tokenizer again with tokenizers.",
            )  # fmt: skip
        if not token.get("special") and reference.tokenizer.token_to_id(token["content"]) != given:
            raise AssertionError(f"{where}: taking out special tokens has moved {token['content']!r}")
    return reference


def _vocabulary(reference: ReferenceEngine) -> list[str]:
    """The vocabulary's entries, each as its name in the file spells it and as the text it stands for."""
    tokenizer = reference.tokenizer
    named = sorted(tokenizer.get_vocab(with_added_tokens=False).items(), key=lambda entry: entry[1])
    texts = tokenizer.decode_batch([[token] for _, token in named], skip_special_tokens=False)
    spellings = ((name, name.replace(WORD_START, " "), text) for (name, _), text in zip(named, texts, strict=True))
    return list(dict.fromkeys(itertools.chain.from_iterable(spellings)))


def _unknown_id(text: str) -> set[int]:
    """The id that stands for what a model does not know, if it has one."""
    model: dict[str, Any] = json.loads(text)["model"]
    if isinstance(model.get("unk_id"), int):
        return {model["unk_id"]}
    vocabulary = model["vocab"]
    return {vocabulary[model["unk_token"]]} if model.get("unk_token") in vocabulary else set()


def _scanned() -> list[str]:
    """The scanned characters, in groups."""
    codes = [code for low, high in SCANNED for code in range(low, high) if not 0xD800 <= code < 0xE000]
    return ["".join(map(chr, codes[start : start + SCAN_GROUP])) for start in range(0, len(codes), SCAN_GROUP)]


def _probe(group: str) -> str:
    """Each character of a group beside letters, digits, spaces and itself."""
    return "".join(f"x{char}{char}1{char} {char}{char}\n" for char in group)


def _odd_characters(fast: Engine, reference: Engine, groups: list[str]) -> str:
    """The characters of groups around which the two engines split text differently.

    The engines carry Unicode tables of different age; the scan covers the ranges that still grow.
    """
    characters = [char for group in groups for char in group]
    probes = list(map(_probe, characters))
    pairs = zip(characters, encode_rows(fast, probes), encode_rows(reference, probes), strict=True)
    return "".join(char for char, ours, theirs in pairs if not np.array_equal(ours, theirs))


def _shown(text: str) -> str:
    # One line of an error shows runs of spaces as one.
    return re.sub(r"(?<= ) |(?<=^.) | (?=.$)", r"\\x20", repr(text[:SHOWN]))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).partition("\n\nLocation:")[0].split())[:200]
