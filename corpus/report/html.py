"""HTML that is safe by construction: every plain string is escaped, and what cannot be seen is made visible."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Collection, Iterable
from typing import TypeAlias

VOID = {"meta", "link", "line"}
"""Elements written without a closing tag (in SVG, self-closed)."""
KEPT = {"\n", "\t", "\u200c", "\u200d"}
"""Not printable, but left as they are: line feed, tab, and the joiners that scripts and emoji are spelled with."""


class Markup(str):
    """Text that is HTML already; anything else is escaped when it becomes part of an element."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | int | Iterable[Markup] | None"


def text(value: str) -> Markup:
    """Escaped text. Control, bidi, format and unassigned characters become marks; line feed and tab stay."""
    if value.isprintable():
        return Markup(html.escape(value))
    return Markup("".join(map(_character, value)))


def _character(char: str) -> str:
    if char.isprintable() or char in KEPT or unicodedata.category(char) == "Zs":
        return html.escape(char)
    return f'<span class="ctl" title="U+{ord(char):04X}">{control_name(char)}</span>'


def control_name(char: str) -> str:
    """What stands for an invisible character: its control picture, or its code point."""
    if char < " ":
        return chr(0x2400 + ord(char))
    return "\u2421" if char == "\x7f" else f"U+{ord(char):04X}"


def plain(value: str) -> str:
    """One line for an attribute or a title: invisible characters named, white space folded; not yet escaped."""
    folded = " ".join(value.split())
    return "".join(char if char.isprintable() or char in KEPT else control_name(char) for char in folded)


def el(name: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element. ``class_`` is class, ``aria_label`` is aria-label; None and False leave an attribute out."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(f" {attribute}" if value is True else f' {attribute}="{html.escape(plain(str(value)))}"')
    if name in VOID:
        return Markup("".join([*parts, "/>"]))
    parts.append(">")
    parts.extend(map(_child, children))
    parts.append(f"</{name}>")
    return Markup("".join(parts))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return text(child)
    if isinstance(child, int):
        return number(child)
    return "".join(child)


def join(*children: Child) -> Markup:
    """Several children as one."""
    return Markup("".join(map(_child, children)))


def number(value: int | float, shown: str | None = None) -> Markup:
    """A number as `<data value=...>`: exact for machines, grouped (or ``shown``) for people."""
    return el("data", f"{value:,}" if shown is None else shown, value=repr(value))


def percent(share: float) -> Markup:
    """A share of one as a percentage."""
    return number(share, f"{100 * share:.2f}%")


def link(shown: str, url: str | None) -> Markup:
    """A link where ``url`` is plain http(s), else the text alone."""
    if url is None or not url.startswith(("https://", "http://")) or not url.isprintable() or " " in url:
        return text(shown)
    return el("a", shown, href=url, rel="noopener noreferrer")


def table(caption: str, columns: list[str], rows: Iterable[Markup], left: Collection[int] = (0,)) -> Markup:
    """A table that scrolls sideways where it must; columns but those in ``left`` hold numbers."""
    head = (
        el("th", column, scope="col", class_=None if place in left else "n") for place, column in enumerate(columns)
    )
    body = el(
        "table",
        el("caption", caption, class_="sr"),
        el("thead", el("tr", head)),
        el("tbody", rows),
    )
    return el("div", body, class_="scroll", tabindex=0, role="region", aria_label=caption)
