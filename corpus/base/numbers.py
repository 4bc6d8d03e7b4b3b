"""Numbers as people read and write them."""

from __future__ import annotations

import argparse
import re
from fractions import Fraction


def si(number: float) -> str:
    """A number with a metric suffix: 1234567 -> 1.23M."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.3g}"


def short_count(number: int) -> str:
    """A whole number as short as it can be written without loss: 20000000 -> 20M, 1234567 -> 1234567."""
    for factor, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number and number % factor == 0:
            return f"{number // factor}{suffix}"
    return str(number)


def file_size(size: float) -> str:
    """Bytes with a decimal unit: 1234567 -> 1.23 MB."""
    for limit, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {suffix}"
    return f"{size:.0f} B"


_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_FACTORS |= {f"{unit}B": factor for unit, factor in _FACTORS.items() if unit in "KMGT" and unit}
_NUMBER = re.compile(r"([+-]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9]{1,2})?) ?([A-Za-z]{1,2}|%)?")


def number(text: str) -> Fraction:
    """The exact number that a text stands for: 12, 10_000, 5e6, 2.5e-3, 20M, 1.5B (billion), 2T, 100GB, 80%.

    Raises ValueError for anything else.
    """
    match = _NUMBER.fullmatch(text.strip())
    unit = (match[2] or "").upper() if match else ""
    if match is None or unit not in {*_FACTORS, "%"}:
        raise ValueError(f"not a number: {text!r}")
    value = Fraction(match[1].replace("_", ""))
    return value / 100 if unit == "%" else value * _FACTORS[unit]


def whole(text: str) -> int:
    """The whole number that a text stands for, as `number` reads it; raises ValueError for others."""
    value = number(text)
    if value.denominator != 1:
        raise ValueError(f"not a whole number: {text!r}")
    return value.numerator


def count(text: str) -> int:
    """A count on a command line: whole, and not negative."""
    try:
        value = whole(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"not a number from 0 on: {text!r}")
    return value
