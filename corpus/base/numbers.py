"""Numbers as people read and write them."""

from __future__ import annotations

import argparse
import re


def si(number: float) -> str:
    """A number with a metric suffix: 1234567 -> 1.23M."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.3g}"


def file_size(size: float) -> str:
    """Bytes with a decimal unit: 1234567 -> 1.23 MB."""
    for limit, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {suffix}"
    return f"{size:.0f} B"


_FACTORS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def count(text: str) -> int:
    """A whole number of a command line, also written 10_000, 5e6, 20M, 1.5B (billion), 2T, or 100GB."""
    match = re.fullmatch(r"([0-9_]+(?:\.[0-9]+)?(?:[eE][0-9]{1,2})?) ?([A-Z]{0,2})", text.strip().upper())
    if match is None or match[2] not in _FACTORS:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}")
    return round(float(match[1]) * _FACTORS[match[2]])
