"""The words of a text as decontamination compares them: what reads the same is the same.

Letters and digits make words, everything else separates them. Compatibility forms are unfolded (full-width letters,
ligatures), case is folded in full (the German sharp s is ss, both of Turkish's i are i), and what has no width or sits
on a letter does not count: soft hyphens, joiners, accents, tones, vowel marks. So composed and decomposed spellings
are equal. In scripts that are written without spaces between words each character is a word of its own.

Two forms of the same rules: `normalise` for exact comparison, and `folded` as bytes for hashing, where words that
differ may look alike.
"""

from __future__ import annotations

import functools
from typing import NamedTuple
from unicodedata import category, normalize

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.intp]

HAN_PER_WORD, SOUTH_EAST_ASIAN_PER_WORD = 2, 3
"""Characters (marks not counted) that a word of these scripts has on average, about; a choice of ours."""

_HAN = (
    (0x3005, 0x3007), (0x3041, 0x30FF), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA000, 0xA48C), (0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip
"""Han, kana, bopomofo, Yi."""
_IDEOGRAPHS = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFC), (0x20000, 0x2A6DD), (0x2A700, 0x2B734), (0x2B740, 0x2B81D), (0x2B820, 0x2CEA1),
    (0x2CEB0, 0x2EBE0), (0x30000, 0x3134A),
)  # fmt: skip
"""Those of _HAN that every version of Unicode in use has, and that stand for themselves: most of all letters."""
_SOUTH_EAST_ASIAN = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F),
    (0xA980, 0xA9DF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF),
)  # fmt: skip
"""Thai, Lao, Burmese, Khmer, Tai scripts, Balinese, Javanese."""
_APOSTROPHES = frozenset("\u02b9\u02ba\u02bb\u02bc\u02bd\u02be\u02bf\u02c8\u02ee\ua78b\ua78c")
"""Letters to Unicode, apostrophes to a reader: they separate, as other apostrophes do."""
_UNSEEN = frozenset("\u0640\u115f\u1160\u3164\uffa0")
"""Letters to Unicode that only stretch a line or fill a place: they do not count."""

_DROPPED, _EXPANDS = 1, 2
"""Values of the byte table for characters without a byte of their own, and for those with more than one."""
_SPREAD = 0x9E3779B1
"""Spreads code points over the bytes of letters."""
_MANY = 128
"""Characters per special one from which a text is expanded all at once; with fewer, one after the other."""


def characters_per_word(char: str) -> int:
    """How many characters such as this (of normalised text) count as a word: 0 for scripts with spaces."""
    code = ord(char)
    if code < 0x0E00:
        return 0
    if any(low <= code <= high for low, high in _HAN):
        return HAN_PER_WORD
    return SOUTH_EAST_ASIAN_PER_WORD if any(low <= code <= high for low, high in _SOUTH_EAST_ASIAN) else 0


def _fold(code: int) -> str:
    """What a character is compared as: letters and digits, spaces where it separates, or nothing."""
    folded = normalize("NFKD", normalize("NFKD", chr(code)).casefold())
    parts = []
    for char in folded:
        kind = category(char)
        if kind[0] == "M" or kind == "Cf" or char in _UNSEEN:
            continue
        if not char.isalnum() or char in _APOSTROPHES:
            parts.append(" ")
        elif char >= "\u0e00" and characters_per_word(char):
            parts.append(f" {char} ")
        else:
            parts.append("i" if char == "\u0131" else char)
    joined = "".join(parts)
    return joined if joined.strip() or not joined else " "


class _Folding(dict[int, str]):
    """Table for str.translate, filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold(code)
        return folded


_FOLDING = _Folding()


def normalise(text: str) -> str:
    """The words of a text, joined by single spaces: the form in which they are compared. Normalising again changes
    nothing."""
    return " ".join(text.translate(_FOLDING).split())


class _Tables(NamedTuple):
    """What each code point is in bytes: 0 separates words, ASCII letters and digits stand for themselves, other
    letters share the bytes from 128 on."""

    byte: NDArray[np.uint8]
    """The one byte, or _DROPPED or _EXPANDS."""
    length: NDArray[np.uint8]
    """How many bytes it has."""
    place: NDArray[np.int32]
    """Where in `bytes` they begin."""
    bytes: NDArray[np.uint8]


@functools.lru_cache(maxsize=1)
def _tables() -> _Tables:
    byte, length = np.zeros(0x110000, np.uint8), np.ones(0x110000, np.uint8)
    place = np.zeros(0x110000, np.int32)
    # Every single byte stands at its own place, as most characters have one; then the characters that are words.
    content = bytearray(range(256)) + b"".join(bytes((0, letter, 0)) for letter in range(0x80, 0x100))
    places: dict[bytes, int] = {}
    slow = np.ones(0x34000, np.bool_)
    for low, high in _IDEOGRAPHS:
        codes = np.arange(low, high + 1, dtype=np.uint32)
        letters = (codes * np.uint32(_SPREAD) >> np.uint32(25)).astype(np.int32)
        byte[low : high + 1], length[low : high + 1], place[low : high + 1] = _EXPANDS, 3, 256 + 3 * letters
        slow[low : high + 1] = False
    # Beyond these nothing is a letter, a digit or a mark.
    for code in (*np.flatnonzero(slow).tolist(), *range(0xE0000, 0xE0200)):
        if category(chr(code)) in ("Cn", "Co", "Cs"):
            continue
        value = bytes(map(_letter, _fold(code)))
        if len(value) == 1:
            byte[code] = place[code] = value[0]
            continue
        if value not in places:
            places[value] = len(content)
            content += value
        byte[code], length[code], place[code] = _EXPANDS if value else _DROPPED, len(value), places[value]
    return _Tables(byte, length, place, np.frombuffer(bytes(content), np.uint8))


def _letter(char: str) -> int:
    code = ord(char)
    if code < 0x80:
        return code if char != " " else 0
    return (code * _SPREAD & 0xFFFFFFFF) >> 25 | 0x80


class Folded(NamedTuple):
    """A text in the bytes of _Tables, with zeros behind to a multiple of eight, at least eight of them."""

    values: NDArray[np.uint8]
    size: int
    """Bytes before those zeros."""
    edits: tuple[Positions, Positions] | None
    """(bytes, characters): where each special character ends in both, in order; None when all have one byte."""

    def character(self, place: int) -> int:
        """The character of the text that a byte is of."""
        if self.edits is None:
            return place
        ends, characters = self.edits
        # The last special character that ends at or before the byte; after it every character has one byte again.
        index = int(np.searchsorted(ends, place, side="right")) - 1
        begin, first = (int(ends[index]), int(characters[index])) if index >= 0 else (0, 0)
        if index + 1 < len(ends):
            # Bytes of the next special character are its own.
            return min(first + place - begin, int(characters[index + 1]) - 1)
        return first + place - begin

    def byte(self, character: int) -> int:
        """The first byte of a character of the text."""
        if self.edits is None:
            return character
        ends, characters = self.edits
        index = int(np.searchsorted(characters, character, side="right")) - 1
        return int(ends[index]) + character - int(characters[index]) if index >= 0 else character


def folded(text: str) -> Folded:
    """The bytes of a text's words."""
    if text.isascii():
        padding = 16 - len(text) % 8
        ascii_table = _tables().byte[:256].tobytes()
        return Folded(np.frombuffer(text.encode().translate(ascii_table) + bytes(padding), np.uint8), len(text), None)
    tables = _tables()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    values = np.zeros(len(text) + 16 - len(text) % 8, np.uint8)
    own = values[: len(text)]
    tables.byte.take(codes, out=own, mode="clip")  # any other mode takes twice as long
    special = np.flatnonzero(own - np.uint8(_DROPPED) <= _EXPANDS - _DROPPED)  # 0 wraps to 255
    if not len(special):
        return Folded(values, len(text), None)
    lengths = tables.length.take(codes[special]).astype(np.intp)
    characters = special + 1
    ends = characters + np.cumsum(lengths - 1)
    size = len(text) + int(lengths.sum()) - len(special)
    result = np.zeros(size + 16 - size % 8, np.uint8)
    if len(special) * _MANY < len(text):
        at = done = 0
        places = tables.place.take(codes[special]).tolist()
        for index, place, length in zip(special.tolist(), places, lengths.tolist(), strict=True):
            result[at : at + index - done] = own[done:index]
            at += index - done
            result[at : at + length] = tables.bytes[place : place + length]
            at, done = at + length, index + 1
        result[at:size] = own[done:]
    else:
        counts = tables.length.take(codes)
        begin = np.cumsum(counts, dtype=np.int32)
        begin -= counts
        index = np.repeat(tables.place.take(codes) - begin, counts)
        index += np.arange(size, dtype=np.int32)
        tables.bytes.take(index, out=result[:size], mode="clip")
    return Folded(result, size, (ends, characters))
