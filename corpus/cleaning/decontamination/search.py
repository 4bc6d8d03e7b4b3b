"""Decontamination: documents that share n consecutive words with a text of an evaluation example.

The search is array arithmetic over large pieces of text: a hash of every word, from those a hash of as many words as
the shortest text looked for has, a look into a table of the evaluation sets' hashes. The few places that pass are
hashed over the whole length looked for there, and what passes that too is compared word by word, so hits are exact.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.cleaning.decontamination.evalsets import WHERE, find_files, read_examples
from corpus.cleaning.decontamination.words import Folded, Positions, characters_per_word, folded, normalise
from corpus.records.stream import EvaluationSet

PIECE_CHARS = 1 << 18
"""Text hashed at once: the arrays of one piece stay within the processor's cache."""
MAX_HITS = 16
"""Examples named per document; a document that holds a whole test set need not list it."""
BITS_PER_NGRAM = 16
"""Size of each bit set at least, per evaluation n-gram."""

Words = NDArray[np.uint32]

_BASE = 0x85EBCA6D
"""Odd, 5 modulo 8, so that its powers modulo 2**32 have the longest possible period."""
_LOW_BITS, _HIGH_BITS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
"""The lowest and the highest bit of each of eight bytes."""
_WORD = 6
"""What a word counts; a character that is a word of its own counts 6 / characters_per_word of it."""


class Hit(NamedTuple):
    """An evaluation example that shares an n-gram with a document."""

    example: str
    """<file name>:<number of the record>."""
    ngram: str
    """The first n words shared, as they are compared."""
    start: int
    """Where they begin in the document, in characters."""


@functools.lru_cache(maxsize=1)
def _power_tables(size: int) -> tuple[Words, Words]:
    tables = []
    for factor in (_BASE, pow(_BASE, -1, 1 << 32)):
        table = np.full(size, factor, np.uint32)
        table[0] = 1
        tables.append(np.multiply.accumulate(table, dtype=np.uint32))
    return tables[0], tables[1]


def _powers(count: int) -> tuple[Words, Words]:
    """Powers of the base and of its inverse, modulo 2**32, at least ``count`` of each."""
    return _power_tables(1 << max(count, PIECE_CHARS).bit_length())


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


def _prefix_sums(values: Words) -> Words:
    power, _ = _powers(len(values))
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


def _hashes(sums: Words, first: Any, last: Any) -> Words:
    """Hashes of the runs of words [first, last).

    Each is the difference of two prefix sums, divided by the power at its start.
    """
    _, inverse = _powers(len(sums))
    run: Words = (sums[last] - sums[first]) * inverse[first]
    return run


class _Table(NamedTuple):
    """The runs looked for of one number of words, in the order of their hashes."""

    words: int
    hashes: Words
    places: NDArray[np.uint32]
    """Rows: text, where the run starts in it and where it ends, in characters."""

    def matches(self, value: np.uint32) -> list[list[int]]:
        low, high = np.searchsorted(self.hashes, value), np.searchsorted(self.hashes, value, side="right")
        return list(self.places[:, low:high].T.tolist())


class Decontaminator:
    """Finds documents that share n consecutive words with any text of the given examples.

    A text of fewer words, but at least ``shortest``, is looked for whole; an example all of whose texts are shorter
    cannot be found.
    """

    def __init__(self, examples: Iterable[tuple[str, Sequence[str]]], ngram: int, shortest: int) -> None:
        self.examples: list[str] = []
        self.detectable: list[bool] = []
        """For each example, whether it can be found."""
        self._texts: list[str] = []
        self._example_of: list[int] = []
        runs: list[tuple[Positions, Words, Positions, Positions]] = []
        for name, texts in examples:
            before = len(runs)
            for text in texts:
                normal = normalise(text)
                words = normal.split(" ") if normal else []
                first, last = _runs(words, ngram, min(shortest, ngram))
                if len(first):
                    starts = np.cumsum([0, *(len(word) + 1 for word in words)], dtype=np.intp)
                    runs.append((starts, _prefix_sums(_words(folded(normal).values)[1]), first, last))
                    self._texts.append(normal)
                    self._example_of.append(len(self.examples))
            self.examples.append(name)
            self.detectable.append(len(runs) > before)
        if not runs:
            raise UserError(
                f"no evaluation example has a text of {min(shortest, ngram)} words", where=WHERE,
                fix="Name the `fields` to compare, or give a smaller `ngram` or `shortest`.",
            )  # fmt: skip
        self._shortest = int(min((last - first).min() for _, _, first, last in runs))
        """Words of the shortest run; the first this many of every run are looked for first."""
        self._tables, self._longest = _tables_of(runs)
        heads = np.unique(np.concatenate([_hashes(sums, first, first + self._shortest) for _, sums, first, _ in runs]))
        self._heads = heads
        bits = min(max((len(heads) * BITS_PER_NGRAM).bit_length(), 10), 31)
        self._shift, self._mask = np.uint32(32 - bits), np.uint32((1 << bits) - 1)
        self._high = _bit_set(heads >> self._shift, bits)
        self._low = _bit_set(heads & self._mask, bits)

    def sets(self) -> list[EvaluationSet]:
        """How many examples of each file can be found, in the order of the files."""
        counts: dict[str, list[int]] = {}
        for name, detectable in zip(self.examples, self.detectable, strict=True):
            count = counts.setdefault(name.rpartition(":")[0], [0, 0])
            count[0] += 1
            count[1] += detectable
        return [
            EvaluationSet(name=name, examples=examples, detectable=detectable, undetectable=examples - detectable)
            for name, (examples, detectable) in counts.items()
        ]

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
            for piece in _pieces(joined, self._longest):
                for index, value, table in self._candidates(piece):
                    start, last, end = piece.place(index, table.words)
                    inside = bisect_right(offsets, start) - 1
                    if last < offsets[inside + 1]:  # else the words are of two documents
                        self._confirm(hits[first + inside], value, table, joined[start:end], start - offsets[inside])
        return [list(found.values()) for found in hits]

    def _candidates(self, piece: _Piece) -> list[tuple[int, np.uint32, _Table]]:
        """(first word, hash, table) of the piece's runs of words whose hashes evaluation texts have too, in order."""
        count = min(piece.usable, len(piece.sums) - self._shortest)
        if count <= 0:
            return []
        _, inverse = _powers(len(piece.sums))
        heads = (piece.sums[self._shortest : self._shortest + count] - piece.sums[:count]) * inverse[:count]
        # Two bit sets spare most the binary search.
        near = np.flatnonzero(_in_bit_set(self._high, heads >> self._shift))
        near = near[_in_bit_set(self._low, heads[near] & self._mask) != 0]
        near = near[_members(self._heads, heads[near])]
        found: list[tuple[int, np.uint32, _Table]] = []
        for table in self._tables if len(near) else ():
            whole = near[near + table.words < len(piece.sums)]
            values = _hashes(piece.sums, whole, whole + table.words)
            held = _members(table.hashes, values)
            found += ((int(at), value, table) for at, value in zip(whole[held], values[held], strict=True))
        return sorted(found, key=lambda candidate: (candidate[0], candidate[2].words))

    def _confirm(self, found: dict[int, Hit], value: np.uint32, table: _Table, text: str, start: int) -> None:
        # The first and the last character may hold more than the words asked for, as one half does.
        words = f" {normalise(text)} "
        for place, begin, end in table.matches(value):
            if len(found) >= MAX_HITS:
                return
            example, run = self._example_of[place], self._texts[place][begin:end].rstrip()
            if example not in found and f" {run} " in words:
                found[example] = Hit(self.examples[example], normalize("NFC", run), start)


def _runs(words: list[str], ngram: int, shortest: int) -> tuple[Positions, Positions]:
    """(first words, words after the last) of the runs to look for in a text: those of ``ngram`` words, or the whole of
    a shorter text."""
    sizes = np.full(len(words), _WORD, np.intp)
    for index, word in enumerate(words):
        if len(word) == 1 and not word.isascii() and (together := characters_per_word(word)):
            sizes[index] = _WORD // together
    ends = np.concatenate([np.zeros(1, np.intp), np.cumsum(sizes)])
    if shortest * _WORD <= ends[-1] < ngram * _WORD:
        return np.zeros(1, np.intp), np.full(1, len(words))
    last = np.searchsorted(ends, ends[:-1] + ngram * _WORD)
    last = last[last <= len(words)]
    return np.arange(len(last)), last


def _tables_of(runs: list[tuple[Positions, Words, Positions, Positions]]) -> tuple[list[_Table], int]:
    """(a table for each number of words, the largest)."""
    lengths = np.concatenate([last - first for _, _, first, last in runs])
    hashes = np.concatenate([_hashes(sums, first, last) for _, sums, first, last in runs])
    texts = np.repeat(np.arange(len(runs)), [len(first) for _, _, first, _ in runs])
    begins = np.concatenate([starts[first] for starts, _, first, _ in runs])
    ends = np.concatenate([starts[last] for starts, _, _, last in runs])
    places = np.stack([texts, begins, ends]).astype(np.uint32)
    tables = []
    for words in np.unique(lengths).tolist():
        own = np.flatnonzero(lengths == words)
        own = own[np.argsort(hashes[own], kind="stable")]
        tables.append(_Table(words, hashes[own], places[:, own]))
    return tables, int(lengths.max())


def _members(ordered: Words, values: Words) -> NDArray[np.bool_]:
    found = np.searchsorted(ordered, values)
    held: NDArray[np.bool_] = ordered[np.minimum(found, len(ordered) - 1)] == values
    return held


class _Piece(NamedTuple):
    """A part of a text, hashed."""

    folded: Folded
    offset: int
    """Its first character in the text."""
    starts: Positions
    """Where its words start, in bytes; then its size."""
    sums: Words
    """Prefix sums over the hashes of its words."""
    usable: int
    """Runs that start at a later word are left to the next piece."""

    def place(self, index: int, words: int) -> tuple[int, int, int]:
        """(start, start of the last word, end) of a run of words, in characters of the text."""
        first, last, end = (int(self.starts[index + more]) for more in (0, words - 1, words))
        character = self.folded.character
        return self.offset + character(first), self.offset + character(last), self.offset + character(end - 1) + 1


def _pieces(text: str, longest: int) -> Iterator[_Piece]:
    """Pieces of a text that overlap, so that every run of words is whole in one of them, and counts there only."""
    offset = 0
    while True:
        part = text[offset : offset + PIECE_CHARS]
        content = folded(part)
        starts, words = _words(content.values)
        if offset + PIECE_CHARS >= len(text):
            yield _Piece(content, offset, np.append(starts, content.size), _prefix_sums(words), len(words))
            return
        # The last word may go on in the next piece: leave its runs to that one.
        left = int(starts[len(words) - longest]) if len(words) > longest else 0
        step = max(content.character(left), PIECE_CHARS // 2)
        count = int(np.searchsorted(starts, content.byte(step)))
        yield _Piece(content, offset, starts, _prefix_sums(words[:-1]), count)
        offset += step


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
def load_decontaminator(against: tuple[str, ...], fields: tuple[str, ...], ngram: int, shortest: int) -> Decontaminator:
    """The decontaminator for some evaluation files, kept for the life of the process."""
    examples = (example for path in find_files(against) for example in read_examples(path, fields))
    return Decontaminator(examples, ngram, shortest)
