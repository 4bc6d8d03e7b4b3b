"""Charts as inline SVG. Places are percentages, so that a chart fills its column without scaling its labels."""

from __future__ import annotations

import math

from corpus.report.html import Markup, el, join, plain

COLOURS = 24
"""Classes s0, s1, ... of the style sheet; sources beyond them start again."""
LABEL_SHARE = 0.09
"""Segments of a strip narrower than this carry no label."""


def colour(place: int) -> str:
    """The colour class of a source by its place in the manifest."""
    return f"s{place % COLOURS}"


def places(value: float) -> str:
    """A percentage as an SVG length."""
    return f"{value:.4f}".rstrip("0").rstrip(".") + "%"


def strip(name: str, shares: dict[str, float]) -> Markup:
    """One stacked bar of shares that sum to 1, in source order."""
    parts, left = [], 0.0
    for place, (source, share) in enumerate(shares.items()):
        title = f"{plain(source)}: {100 * share:.2f}% {name}"
        segment = {"x": places(100 * left), "width": places(100 * share), "data_value": repr(share)}
        parts.append(
            el("rect", el("title", title), y=0, height="100%", class_=colour(place), data_chart=f"mix {name}",
               data_source=source, **segment)
        )  # fmt: skip
        if share >= LABEL_SHARE:
            parts.append(el("text", f"{100 * share:.0f}%", x=places(100 * (left + share / 2)), y="50%"))
        left += share
    label = f"Mix {name}: " + ", ".join(f"{source} {100 * share:.1f}%" for source, share in shares.items())
    return el("div", el("span", name), el("svg", parts, role="img", aria_label=label, class_="strip"), class_="strips")


def bar(chart: str, source: str, value: float, scale: float, class_: str, marks: tuple[float, ...] = ()) -> Markup:
    """A horizontal bar in a table cell: ``value`` of ``scale``, with lines at ``marks``. The cell beside it says it."""
    rect = el("rect", x=0, y=0, width=places(100 * value / scale if scale else 0), height="100%", class_=class_,
              data_chart=chart, data_source=source, data_value=repr(value))  # fmt: skip
    lines = [_line(100 * mark / scale, "mark") for mark in marks if mark <= scale]
    return el("svg", rect, lines, class_="bar", aria_hidden="true")


def _line(place: float, class_: str) -> Markup:
    return el("line", x1=places(place), x2=places(place), y1=0, y2="100%", class_=class_)


def waterfall(chart: str, source: str, row: str, start: int, count: int, total: int, class_: str) -> Markup:
    """One step of a funnel: ``count`` of ``total``, beginning at ``start``."""
    rect = el("rect", x=places(100 * start / total if total else 0), y=0,
              width=places(100 * count / total if total else 0), height="100%", class_=class_,
              data_chart=chart, data_source=source, data_row=row, data_value=count)  # fmt: skip
    return el("svg", rect, class_="bar", aria_hidden="true")


def bin_range(bits: int) -> tuple[int, int]:
    """The smallest and largest token count of bit length ``bits``."""
    return (1 << bits) >> 1, max(0, (1 << bits) - 1)


def bin_label(bits: int) -> str:
    """'256 to 511'."""
    low, high = bin_range(bits)
    return str(low) if low == high else f"{low:,} to {high:,}"


def _edge(bits: int) -> str:
    """The lower edge of a bin, short: 512, 1k, 2k, 1M (binary thousands)."""
    low = bin_range(bits)[0]
    for shift, suffix in ((30, "G"), (20, "M"), (10, "k")):
        if low >= 1 << shift:
            return f"{low >> shift}{suffix}"
    return str(low)


def histogram(source: str, lengths: dict[int, int], first: int, last: int, seq_len: int, class_: str) -> Markup:
    """Document lengths in doubling bins ``first``..``last`` (bit lengths), with a line at ``seq_len`` tokens."""
    bins = last - first + 1
    tallest = max(lengths.values(), default=0)
    step = 100 / bins
    every = 1 if bins <= 8 else 2 if bins <= 16 else 3
    bars, axis = [], []
    for place, bits in enumerate(range(first, last + 1)):
        count = lengths.get(bits, 0)
        height = 100 * count / tallest if tallest else 0
        title = el("title", f"{bin_label(bits)} tokens: {count:,} documents")
        if count:
            rect = el("rect", x=places(place * step + step * 0.06), width=places(step * 0.88), y=places(100 - height),
                      height=places(height), rx=1.5, class_=class_, data_chart="lengths", data_source=source,
                      data_row=bits, data_value=count)  # fmt: skip
            bars.append(el("g", title, rect))
        if place % every == 0:
            axis.append(el("text", _edge(bits), x=places(place * step + step / 2), y=13))
    at = (math.log2(seq_len) + 1 - first) * step
    line = _line(at, "mark") if 0 <= at <= 100 else None
    label = f"Document lengths of {source}: " + ", ".join(
        f"{bin_label(bits)} tokens {count:,}" for bits, count in sorted(lengths.items())
    )
    return join(
        el("svg", bars, line, class_="columns", role="img", aria_label=label),
        el("svg", axis, class_="axis", aria_hidden="true"),
    )
