"""The tokeniser seam: batches of texts to ids, by the reference engine or the fast one, with equal results.

Special tokens are taken out of the tokenizer before either engine sees it, so a document that spells one is
encoded as ordinary text; ids of special tokens come from the packer alone.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from corpus.base.collector import parse_large
from corpus.base.errors import UserError
from corpus.base.files import write_json

Ids = NDArray[np.uint32]

TRICKY = [
    "",
    " ",
    "\n",
    "\x00",
    "\ufeff",
    "\u200b\u200d",
    "a" * 4099,
    " " * 513,
    "\t\t\n\r\n \n",
    "0123456789" * 7,
    "don't WE'LL I'M",
    "e\u0301 \u00e9 \u212b \ufb01 \u0130 \u017f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7",
    "\u4f60\u597d\u4e16\u754c\u3002",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "<|begin_of_text|><|end_of_text|></s><s>[INST]",
    "x\u00a0y\u2028z\u2029",
    "\ud7ff\ue000\ufffd\U0010ffff",
    "<?php echo '\\u0041'; ?>\n\n\n    }",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
]
"""Texts on which the two engines are compared before any document is encoded."""
CHECK_FILE = "engine-check.json"
SCANNED = ((0, 0x20000), (0x2A6D0, 0x34000), (0xE0000, 0xE0200))
"""Code points looked at: planes 0 and 1, the ends of the ideographs, and the tags."""
MOST_ODD = 2000
"""More characters than this on which the engines differ, or an ASCII one, and the fast one cannot be used."""
ASCII = bytes(range(128))


class Engine(Protocol):
    """Encodes batches of texts."""

    name: str

    def encode_batch(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.int64]]:
        """All ids end to end, and the number of ids of each text."""


class ReferenceEngine:
    """Hugging Face `tokenizers`."""

    name = "tokenizers"

    def __init__(self, tokenizer_json: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(without_special_tokens(tokenizer_json))

    def encode_batch(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.int64]]:
        """See Engine."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        return (np.concatenate(rows) if rows else np.empty(0, np.uint32)), lengths


class FastEngine:
    """`gigatoken`; the constructor raises ValueError when it does not support the tokenizer.

    Texts with one of ``odd`` characters, on which the two engines' Unicode tables differ, go to the reference.
    """

    name = "gigatoken"

    def __init__(self, tokenizer_json: str, odd: str = "", reference: Callable[[], Engine] | None = None) -> None:
        import gigatoken

        self._tokenizer = gigatoken.Tokenizer.from_json(without_special_tokens(tokenizer_json))
        self._odd = re.compile(f"[{re.escape(odd)}]") if odd else None
        self._reference = reference

    def encode_batch(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.int64]]:
        """See Engine."""
        if not texts:
            return np.empty(0, np.uint32), np.empty(0, np.int64)
        # Workers are processes; a thread pool in each would only make them fight over the cores.
        rows = self._tokenizer.encode_batch(list(texts), parallel=False)
        offsets = np.asarray(rows.layout.offsets.data, dtype=np.int64)
        ids = np.asarray(rows.layout.content.data, dtype=np.uint32)
        if self._odd is not None:
            odd = [index for index, text in enumerate(texts) if not text.isascii() and self._has_odd(text)]
            if odd:
                return self._spliced(texts, odd, ids, offsets)
        return ids[offsets[0] : offsets[-1]], np.diff(offsets)

    def _has_odd(self, text: str) -> bool:
        assert self._odd is not None
        # Without its ASCII, of which none is odd, little is left of most texts, and the search is far slower than this.
        return self._odd.search(text.encode().translate(None, ASCII).decode()) is not None

    def _spliced(
        self, texts: Sequence[str], odd: list[int], ids: Ids, offsets: NDArray[np.int64]
    ) -> tuple[Ids, NDArray[np.int64]]:
        assert self._reference is not None
        rows = [ids[low:high] for low, high in itertools.pairwise(offsets.tolist())]
        for index in odd:
            rows[index] = self._reference().encode_batch([texts[index]])[0]
        return np.concatenate(rows), np.fromiter(map(len, rows), np.int64, len(rows))


def _odd_characters(fast: Engine, reference: Engine) -> str:
    """Characters around which the two engines split text differently.

    The engines carry Unicode tables of different age; the scan covers the ranges that still grow.
    """
    codes = [code for low, high in SCANNED for code in range(low, high) if not 0xD800 <= code < 0xE000]
    groups = ["".join(map(chr, codes[start : start + 64])) for start in range(0, len(codes), 64)]
    suspects = _differing(fast, reference, groups)
    return "".join(char for group in suspects for char in _differing(fast, reference, list(group)))


def _differing(fast: Engine, reference: Engine, groups: list[str]) -> list[str]:
    """The groups of characters on which the engines differ, each probed beside letters, digits, spaces and itself."""
    probes = ["".join(f"x{char}{char}1{char} {char}{char}\n" for char in group) for group in groups]
    rows = []
    for engine in (fast, reference):
        ids, lengths = engine.encode_batch(probes)
        rows.append(np.split(ids, np.cumsum(lengths)[:-1]))
    return [group for group, ours, theirs in zip(groups, *rows, strict=True) if not np.array_equal(ours, theirs)]


@functools.lru_cache(maxsize=1)  # both engines ask for the same one
def without_special_tokens(tokenizer_json: str) -> str:
    """The tokenizer as JSON with special added tokens, post-processing, truncation and padding removed."""
    data = parse_large(tokenizer_json)
    data["added_tokens"] = [token for token in data.get("added_tokens") or [] if not token.get("special")]
    data["post_processor"] = data["truncation"] = data["padding"] = None
    return orjson.dumps(data).decode()


def _special_tokens(tokenizer_json: str) -> list[dict[str, Any]]:
    added = parse_large(tokenizer_json).get("added_tokens") or []
    return [token for token in added if token.get("special")]


def special_ids(tokenizer_json: str) -> list[int]:
    """Ids that text must never produce."""
    return sorted(int(token["id"]) for token in _special_tokens(tokenizer_json))


@functools.lru_cache(maxsize=4)
def load_engine(path: Path, name: str) -> Engine:
    """The named engine for a tokenizer.json, kept for the life of the process (and of those forked from it)."""
    text = path.read_text(encoding="utf-8")
    if name == FastEngine.name:
        return FastEngine(text, check_engine(path).odd, lambda: load_engine(path, ReferenceEngine.name))
    return ReferenceEngine(text)


@functools.lru_cache(maxsize=2)
def special_table(path: Path, vocab_size: int) -> NDArray[np.bool_]:
    """Truth table over ids: is it a special token?"""
    table = np.zeros(vocab_size, np.bool_)
    table[check_engine(path).specials] = True
    return table


@dataclass(frozen=True)
class EngineCheck:
    """What is known of the fast engine on one tokenizer."""

    odd: str
    """Characters whose texts go to the reference."""
    refusal: str | None
    """Why the fast engine cannot be used; None when it can."""
    leak: str | None
    """A text that the tokenizer itself turns into a special token; None when it has none."""
    specials: list[int]
    """Ids of the special tokens."""


def check_engine(path: Path) -> EngineCheck:
    """Compare the fast engine with the reference on TRICKY, on the special tokens' spellings and on new characters.

    Done once per tokenizer and pair of versions; the finding is kept beside tokenizer.json.
    """
    facts = path.with_name(CHECK_FILE)
    versions = {name: metadata.version(name) for name in (FastEngine.name, ReferenceEngine.name)}
    if facts.is_file():
        known = json.loads(facts.read_bytes())
        if known["versions"] == versions:
            return EngineCheck(known["odd"], known["refusal"], known["leak"], known["specials"])
    text = path.read_text(encoding="utf-8")
    odd, refusal = "", None
    reference, specials = ReferenceEngine(text), special_ids(text)
    texts = TRICKY + [f"a {token['content']} b{token['content']}" for token in _special_tokens(text)]
    leak = next((shown for shown in texts if np.isin(reference.encode_batch([shown])[0], specials).any()), None)
    try:
        fast = FastEngine(text)
        compare(fast, reference, texts, [f"built-in text {number}" for number in range(len(texts))])
        odd = _odd_characters(fast, reference)
        if len(odd) > MOST_ODD or any(map(str.isascii, odd)):
            odd, refusal = "", f"it splits text differently around {len(odd)} characters"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a refusal may be of any type; a panic in Rust code is no Exception
        refusal = " ".join(str(error).split())[:200]
    check = EngineCheck(odd, refusal, leak, specials)
    write_json(facts, {"versions": versions, **asdict(check)})
    return check


def choose_engine(path: Path, asked: str | None) -> tuple[str, str | None]:
    """Name of the engine to use, and a note when the fast one cannot be.

    ``asked`` forces one; UserError is raised when that is the fast one and it fails its check, and for a tokenizer
    whose own vocabulary turns ordinary text into special tokens.
    """
    check = check_engine(path)
    if check.leak is not None:
        raise UserError(
            f"this tokenizer encodes the ordinary text {check.leak[:40]!r} to a special token",
            where=path.parent.name,
            fix="Text must never become control: use a byte-level BPE tokenizer.",
        )
    if asked == ReferenceEngine.name:
        return ReferenceEngine.name, None
    refusal = check.refusal
    if refusal is None:
        return FastEngine.name, None
    if asked == FastEngine.name:
        raise UserError(
            f"the {FastEngine.name} engine cannot be used with this tokenizer: {refusal}",
            where=path.parent.name, fix=f"Use --engine {ReferenceEngine.name}.",
        )  # fmt: skip
    return ReferenceEngine.name, f"{FastEngine.name} cannot be used with this tokenizer ({refusal})"


def compare(engine: Engine, reference: Engine, texts: Sequence[str], names: Sequence[str]) -> None:
    """Raise UserError naming the first text on which two engines disagree."""
    ids, lengths = engine.encode_batch(texts)
    right_ids, right_lengths = reference.encode_batch(texts)
    if np.array_equal(ids, right_ids) and np.array_equal(lengths, right_lengths):
        return
    ends, right_ends = np.cumsum(lengths), np.cumsum(right_lengths)
    for index, name in enumerate(names):
        ours = ids[ends[index] - lengths[index] : ends[index]]
        theirs = right_ids[right_ends[index] - right_lengths[index] : right_ends[index]]
        if not np.array_equal(ours, theirs):
            raise UserError(
                f"{engine.name} and {reference.name} encode this document differently",
                where=name, fix=f"Build with --engine {reference.name} and report the document to {engine.name}.",
            )  # fmt: skip
