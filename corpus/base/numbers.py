"""Numbers as people read and write them."""

from __future__ import annotations


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
