"""The tokeniser seam: batches of texts to ids, by the reference engine or the fast one, with equal results.

Special tokens are taken out of the tokenizer before either engine sees it, so a document that spells one is
encoded as ordinary text; ids of special tokens come from the packer alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.tokenization.plain import plain_tokenizer

Ids = NDArray[np.uint32]

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

        self.tokenizer = Tokenizer.from_str(plain_tokenizer(tokenizer_json))

    def encode_batch(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.int64]]:
        """See Engine."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
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

        self._tokenizer = gigatoken.Tokenizer.from_json(plain_tokenizer(tokenizer_json))
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


def encode_rows(engine: Engine, texts: Sequence[str]) -> list[Ids]:
    """The ids of each text."""
    ids, lengths = engine.encode_batch(texts)
    return np.split(ids, np.cumsum(lengths)[:-1]) if len(texts) else []


def compare(engine: Engine, reference: Engine, texts: Sequence[str], names: Sequence[str]) -> None:
    """Raise UserError naming the first text on which two engines disagree."""
    for name, ours, theirs in zip(names, encode_rows(engine, texts), encode_rows(reference, texts), strict=True):
        if not np.array_equal(ours, theirs):
            raise UserError(
                f"{engine.name} and {reference.name} encode this document differently",
                where=name, fix=f"Build with --engine {reference.name} and report the document to {engine.name}.",
            )  # fmt: skip
