"""Texts on which a tokenizer and its engines are tried before any document is encoded."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections.abc import Iterator, Sequence

TRICKY = [
    "",
    "The caf\u00e9 (open since 1742) sells \u6570\u5b66 \u2014 it's \u2018good\u2019.\n",
    " ",
    "\n",
    "\x00",
    "\ufeff",
    "\u200b\u200d",
    "a" * 4099,
    " " * 513,
    "=" * 300,
    "\t\t\n\r\n \n",
    "  two  spaces,  at both ends too  ",
    "0123456789" * 7,
    "\u0661\u0662\u0663 \u00b2\u00b3 \u00bd \u2167 1\u066b5",
    "don't WE'LL I'M 'S 'll \u2019s x's's ''",
    "e\u0301 \u00e9 \u212b \ufb01 \u0130 \u017f",
    "a\u0315\u0300\u0344 \u1100\u1161\u11a8 \uac01 q\u0323\u0307",
    "\u039f\u0394\u039f\u03a3 \u03a3\u0391\u03a3 Stra\u00dfe \u01c5 \u0130I\u0131i",
    "\uff21\uff22\uff23 \u2460 \u210c \u3231 \u337f \ufdfa",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2764\ufe0f",
    "\u4f60\u597d\u4e16\u754c\u3002",
    "caf\u00e9 \u6570\u5b66 \u2014 42",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "<|begin_of_text|><|end_of_text|></s><s>[INST]",
    "x\u00a0y\u2028z\u2029 \u3000\x85\x0b\x0c\x1c\x1f\u180e\u2000\u202f\u205f.",
    "\ud7ff\ue000\ufffd\U0010ffff",
    "<?php echo '\\u0041'; ?>\n\n\n    }",
    "camelCase HTTPServer snake_case __init__ 3x x3 x_3",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u2581x \u2581\u2581 y\u2581 <0x41> \u0120 \u010a ##a </w>",
]
"""What tokenizers and engines have stumbled over: spaces, digits, case, composition, scripts, spellings of markers."""
MIXED, MOST_PIECES = 400, 12
VOCABULARY, RUNS, RUN = 40_000, 4000, 6
"""Most entries of a vocabulary that are tried alone, and texts of so many entries one behind the other."""


def probe_texts(added: Sequence[str], vocabulary: Sequence[str]) -> list[str]:
    """All built-in texts for a tokenizer: ``added`` are its added tokens' spellings, special or not."""
    return [*TRICKY, *mixed_texts(), *added_token_texts(added), *vocabulary_texts(vocabulary, added)]


def mixed_texts() -> Iterator[str]:
    """Pieces of TRICKY's kind, thrown together; always the same."""
    rng = random.Random(17)  # noqa: S311
    pieces = [
        *itertools.chain.from_iterable(text[:80].split(" ") for text in TRICKY),
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "1",
    ]
    pieces = sorted(set(pieces) - {""})
    for _ in range(MIXED):
        yield "".join(rng.choices(pieces, k=rng.randint(1, MOST_PIECES)))


def added_token_texts(added: Sequence[str]) -> Iterator[str]:
    """Every added token: alone, inside a word, beside letters, digits, spaces, line breaks, marks, and its like."""
    for token, following in zip(added, [*added[1:], *added[:1]], strict=True):
        yield token
        yield f"a {token} b{token}"
        for left, right in (
            ("x", "y"), ("x", ""), ("", "y"), ("1", "2"), ("_", "_"), ("\u00e9", "\u6570"), (".", ","), ("(", ")"),
            (" ", " "), ("x ", " y"), ("x  ", "  y"), ("\n", "\n"), ("x\n\n ", " \n\ny"), ("x\t", "\u00a0y"),
            ("\u200b", "\u0301"), ("", "s"), ("-", "'s"),
        ):  # fmt: skip
            yield f"{left}{token}{right}"
        yield token + token
        yield f"{token} {token}  {token}\n{token}"
        yield f"{token[:-1]}{token}{token[1:]}"
        yield f"{token}{following}x{following} {token}"
        spellings = {token.upper(), token.lower(), token.title(), f"{token[:1].swapcase()}{token[1:]}"}
        spellings |= {unicodedata.normalize(form, token) for form in ("NFC", "NFD", "NFKC", "NFKD")}
        for spelling in sorted(spellings - {token}):
            yield f"a {spelling} b{spelling}c"


def vocabulary_texts(vocabulary: Sequence[str], added: Sequence[str]) -> Iterator[str]:
    """Entries of the vocabulary alone, and runs of them and of added tokens, in which an engine meets every merge."""
    yield from vocabulary[:: max(1, len(vocabulary) // VOCABULARY)]
    rng = random.Random(len(vocabulary))  # noqa: S311
    for number in range(RUNS if vocabulary else 0):
        run = rng.choices(vocabulary, k=RUN)
        if added and number % 2:
            run[rng.randrange(RUN)] = rng.choice(added)
        yield "".join(run)
