"""Decontamination: documents that share n consecutive words with an evaluation example.

Words are runs of letters and digits, lower-cased; everything else separates them. (A script written without spaces is
thus compared by whole runs.) The search is array arithmetic over large pieces of text: a hash of every word, from
those a hash of every n words, a look into a table of the evaluation sets' hashes. What the table lets through is
compared word by word, so hits are exact.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.cleaning.decontamination.evalsets import WHERE, find_files, read_examples

PIECE_CHARS = 1 << 18
"""Text hashed at once: the arrays of one piece stay within the processor's cache."""
MAX_HITS = 16
"""Examples named per document; a document that holds a whole test set need not list it."""
BITS_PER_NGRAM = 16
"""Size of each bit set at least, per evaluation n-gram."""

Words = NDArray[np.uint32]
Positions = NDArray[np.intp]

_BASE = 0x85EBCA6D
"""Odd, 5 modulo 8, so that its powers modulo 2**32 have the longest possible period."""
_LOW_BITS, _HIGH_BITS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
"""The lowest and the highest bit of each of eight bytes."""


class Hit(NamedTuple):
    """An evaluation example that shares an n-gram with a document."""

    example: str
    """<file name>:<number of the record>."""
    ngram: str
    """The first n words shared, as they are compared."""
    start: int
    """Where they begin in the document, in characters."""


def _fold(code: int) -> int:
    """The code point a character is compared as; 0 for one that separates words."""
    char = chr(code)
    if not char.isalnum():
        return 0
    lower = char.lower()
    return ord(lower) if len(lower) == 1 else code


class _Folding(dict[int, int]):
    """Table for str.translate, filled as characters turn up."""

    def __missing__(self, code: int) -> int:
        folded = self[code] = _fold(code) or 0x20
        return folded


_FOLDING = _Folding()


def normalise(text: str) -> str:
    """The words of a text, joined by single spaces: the form in which n-grams are compared."""
    return " ".join(text.translate(_FOLDING).split())


@functools.lru_cache(maxsize=1)
def _byte_table() -> NDArray[np.uint8]:
    """A byte for every code point: ASCII letters and digits stand for themselves, lower-cased; 0 separates words.

    Other characters of words share the bytes from 128 on, equal for those that fold alike.
    """
    codes = np.fromiter(map(_fold, range(0x110000)), np.uint32, 0x110000)
    mixed = (codes * np.uint32(0x9E3779B1)) >> np.uint32(25) | np.uint32(0x80)
    return np.where(codes < 0x80, codes, mixed).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _powers() -> tuple[Words, Words]:
    """Powers of the base and of its inverse, modulo 2**32, enough for a piece."""
    tables = []
    for factor in (_BASE, pow(_BASE, -1, 1 << 32)):
        table = np.full(PIECE_CHARS // 2 + 2, factor, np.uint32)
        table[0] = 1
        tables.append(np.multiply.accumulate(table, dtype=np.uint32))
    return tables[0], tables[1]


def _word_bytes(text: str) -> NDArray[np.uint8]:
    """The bytes of _byte_table, one per character, and zeros to a multiple of eight with at least eight of them."""
    padding = 16 - len(text) % 8
    if text.isascii():
        return np.frombuffer(text.encode().translate(_byte_table()[:256].tobytes()) + bytes(padding), np.uint8)
    values = np.zeros(len(text) + padding, np.uint8)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    _byte_table().take(codes, out=values[: len(text)], mode="clip")  # any other mode takes twice as long
    return values


def _words(values: NDArray[np.uint8]) -> tuple[Positions, Words]:
    """(where each word starts, a hash of it) from _word_bytes.

    The hash is of its first eight bytes alone. Other words may share it; hits are confirmed later.
    """
    inside = np.zeros(len(values) + 1, np.bool_)
    np.not_equal(values, 0, out=inside[1:])
    starts = np.flatnonzero(inside[1:] > inside[:-1])
    # The eight bytes from any place, out of the two aligned numbers they lie in.
    aligned, whole = values.view("<u8"), starts >> 3
    shift = ((starts & 7) << 3).view(np.uint64)
    first = aligned.take(whole) >> shift
    first |= (aligned.take(whole + 1) << np.uint64(1)) << (np.uint64(63) - shift)
    # The highest bit of the lowest byte that is zero, if one is; then everything below that byte.
    zero = (first - _LOW_BITS) & ~first & _HIGH_BITS
    zero &= ~zero + np.uint64(1)
    first &= (zero >> np.uint64(7)) - np.uint64(1)
    first *= np.uint64(0x9E3779B97F4A7C15)
    return starts, (first >> np.uint64(32)).astype(np.uint32)


def _ngrams(text: str, ngram: int) -> tuple[Positions, Words]:
    """Starts of the words of a text (at most a piece long), and a hash of each run of ``ngram`` words.

    Starts in characters, then the text's length as one more; there are len(starts) - ngram hashes, or none.
    """
    starts, words = _words(_word_bytes(text))
    starts = np.append(starts, len(text))
    count = len(starts) - ngram
    if count <= 0:
        return starts, np.empty(0, np.uint32)
    # The difference of two prefix sums, divided by the power at its start.
    power, inverse = _powers()
    sums = _prefix_sums(words, power)
    return starts, (sums[ngram:] - sums[:count]) * inverse[:count]


def _prefix_sums(values: Words, power: Words) -> Words:
    sums = np.zeros(len(values) + 1, np.uint32)
    np.multiply(values, power[: len(values)], out=sums[1:])
    return np.cumsum(sums, dtype=np.uint32, out=sums)


def _bit_set(members: Words, bits: int) -> NDArray[np.uint8]:
    flags = np.zeros(1 << bits, np.bool_)
    flags[members] = True
    return np.packbits(flags, bitorder="little")


def _in_bit_set(bit_set: NDArray[np.uint8], values: Words) -> NDArray[np.uint8]:
    """Non-zero for the values that are members."""
    held = bit_set.take(values >> np.uint32(3))
    held &= np.left_shift(np.uint8(1), values.astype(np.uint8) & np.uint8(7))
    return held


class Decontaminator:
    """Finds documents that share an n-gram with the given examples."""

    def __init__(self, examples: Iterable[tuple[str, str]], ngram: int) -> None:
        self.ngram = ngram
        self.short_examples = 0
        """Examples of fewer than n words, which cannot be found."""
        self._names: list[str] = []
        self._texts: list[str] = []
        columns: list[tuple[Words, NDArray[Any]]] = []
        for name, text in examples:
            normal = normalise(text)
            windows = 0
            for starts, hashes, offset in _pieces(normal, ngram):
                first, last = starts[: len(hashes)], starts[ngram : ngram + len(hashes)]
                place = np.stack([np.full(len(hashes), len(self._names)), first + offset, last + offset])
                columns.append((hashes, place))
                windows += len(hashes)
            self.short_examples += windows == 0
            self._names.append(name)
            self._texts.append(normal)
        hashes = np.concatenate([column for column, _ in columns]) if columns else np.empty(0, np.uint32)
        if not len(hashes):
            raise UserError(f"no evaluation example has {ngram} words", where=WHERE, fix="Give a smaller `ngram`.")
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._places = np.concatenate([place for _, place in columns], axis=1)[:, order].astype(np.uint32)
        """Rows: example, where the n-gram starts in its text, where the next word does; in the order of the hashes."""
        bits = min(max((len(hashes) * BITS_PER_NGRAM).bit_length(), 10), 31)
        self._shift, self._mask = np.uint32(32 - bits), np.uint32((1 << bits) - 1)
        self._high = _bit_set(self._hashes >> self._shift, bits)
        self._low = _bit_set(self._hashes & self._mask, bits)

    def check(self, text: str) -> list[Hit]:
        """The examples a document shares an n-gram with, in order of appearance, at most MAX_HITS."""
        return self.check_many([text])[0]

    def check_many(self, texts: Sequence[str]) -> list[list[Hit]]:
        """check() of several documents, much faster for short ones."""
        hits: list[dict[int, Hit]] = [{} for _ in texts]
        for first, group in _groups(texts):
            joined = "\n".join(group)
            offsets = [0]
            for text in group:
                offsets.append(offsets[-1] + len(text) + 1)
            for starts, hashes, offset in _pieces(joined, self.ngram):
                for index in self._candidates(hashes).tolist():
                    start, last, end = (int(starts[index + more]) + offset for more in (0, self.ngram - 1, self.ngram))
                    inside = bisect_right(offsets, start) - 1
                    if last < offsets[inside + 1]:  # else the words are of two documents
                        found = hits[first + inside]
                        self._confirm(found, hashes[index], joined[start:end], start - offsets[inside])
        return [list(found.values()) for found in hits]

    def _candidates(self, hashes: Words) -> Positions:
        """Indexes of the hashes that evaluation n-grams have too; two bit sets spare most the binary search."""
        near = np.flatnonzero(_in_bit_set(self._high, hashes >> self._shift))
        near = near[_in_bit_set(self._low, hashes[near] & self._mask) != 0]
        found = np.searchsorted(self._hashes, hashes[near])
        return near[self._hashes[np.minimum(found, len(self._hashes) - 1)] == hashes[near]]

    def _confirm(self, found: dict[int, Hit], value: np.uint32, text: str, start: int) -> None:
        ngram = normalise(text)
        low, high = np.searchsorted(self._hashes, value), np.searchsorted(self._hashes, value, side="right")
        for example, begin, end in self._places[:, low:high].T.tolist():
            if len(found) >= MAX_HITS:
                return
            if example not in found and self._texts[example][begin:end].rstrip() == ngram:
                found[example] = Hit(self._names[example], ngram, start)


def _pieces(text: str, ngram: int) -> Iterator[tuple[Positions, Words, int]]:
    """(starts, hashes, offset) of pieces of a text: see _ngrams; the offset is the piece's own, in characters.

    Pieces overlap, so that every run of words is whole in one of them, and counts there only.
    """
    offset = 0
    while True:
        starts, hashes = _ngrams(text[offset : offset + PIECE_CHARS], ngram)
        if offset + PIECE_CHARS >= len(text):
            yield starts, hashes, offset
            return
        # The last word may go on in the next piece: leave its n-gram to that one.
        yield starts, hashes[:-1], offset
        offset += max(int(starts[len(hashes) - 1]) if len(hashes) else 0, PIECE_CHARS // 2)


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(index of the first, texts) of runs of texts that together fill a piece."""
    first, size = 0, 0
    for index, text in enumerate(texts):
        if index > first and size + len(text) + 1 > PIECE_CHARS:
            yield first, list(texts[first:index])
            first, size = index, 0
        size += len(text) + 1
    yield first, list(texts[first:])


@functools.lru_cache(maxsize=1)
def load_decontaminator(against: tuple[str, ...], fields: tuple[str, ...], ngram: int) -> Decontaminator:
    """The decontaminator for some evaluation files, kept for the life of the process."""
    examples = (example for path in find_files(against) for example in read_examples(path, fields))
    return Decontaminator(examples, ngram)
