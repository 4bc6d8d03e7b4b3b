"""The catalogue and its pins as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from rich.markup import escape
from rich.table import Table

from corpus.base.numbers import si
from corpus.catalogue.models import Source
from corpus.catalogue.pins import Pin
from corpus.report.tables import console


def where(source: Source) -> str:
    """Where a source's files are, in a few words."""
    origin = source.origin
    if origin.kind == "hub":
        return origin.repo
    if origin.kind == "urls":
        return urlsplit(origin.url_list or (origin.urls or [""])[0]).netloc
    if origin.kind == "embedded":
        return "this Python installation"
    return origin.paths[0]


def show_sources(catalogue: Mapping[str, Source]) -> None:
    """Print one line a source."""
    table = Table(title=f"{len(catalogue)} sources", title_justify="left")
    for column in ("name", "from", "rows", "tokens", "access", "licence", "stand-in for"):
        right = column in ("rows", "tokens")
        table.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=column == "name")
    for name, source in catalogue.items():
        rows = next((entry.rows for entry in source.published if entry.rows is not None), None)
        tokens = next((entry.tokens for entry in source.published if entry.tokens is not None), None)
        table.add_row(
            escape(name), escape(where(source)), "" if rows is None else si(rows), "" if tokens is None else si(tokens),
            "gated" if source.gate else "open",
            escape(source.licence) + ("" if source.redistributable else " (do not publish)"), source.stand_in_for or "",
        )  # fmt: skip
    out = console()
    out.print(table)
    out.print("`python -m corpus.sources NAME` shows an entry; --check asks whether it can be read.", highlight=False)


def show_pins(found: Sequence[Pin]) -> None:
    """Print the revision of each upstream, and which have none that is fixed."""
    table = Table(title=f"{len(found)} upstreams and the state they are read at", title_justify="left")
    for column in ("upstream", "revision", "first asked", "sources"):
        table.add_column(column, overflow="fold")
    for pin in found:
        revision = pin.revision or "(no revisions: by size and ETag)"
        if pin.revision is not None and not pin.pinned:
            revision += f" = {pin.commit}" if pin.commit else " (not pinned)"
        table.add_row(escape(pin.upstream), escape(revision), pin.first_asked or "", ", ".join(pin.sources))
    out = console()
    out.print(table)
    loose = [pin.upstream for pin in found if pin.revision is not None and not pin.pinned]
    out.print(
        f"not pinned: {', '.join(loose) or 'none'}; a data folder keeps what they stood for first", highlight=False
    )
