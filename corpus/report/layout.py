"""What the report's sections are laid out from: an entry, a titled section, a row of a table."""

from __future__ import annotations

from dataclasses import dataclass

from corpus.records.manifest import ManifestSource
from corpus.records.stream import StreamRecord
from corpus.report.html import Child, Markup, el, join, number
from corpus.report.samples import SampleDocument


@dataclass(frozen=True)
class Entry:
    """One mixture entry as the report shows it."""

    name: str
    colour: str
    source: ManifestSource
    record: StreamRecord
    """Without its units."""
    documents: list[SampleDocument]

    @property
    def title(self) -> Markup:
        """Its name behind its colour."""
        swatch = el("svg", el("rect", width="100%", height="100%", class_=self.colour), class_="swatch",
                    aria_hidden="true")  # fmt: skip
        return join(swatch, self.name)

    @property
    def head(self) -> Markup:
        """The first cell of its row in a table."""
        return el("th", self.title, scope="row")


def section(anchor: str, title: str, lead: Child, *content: Child) -> Markup:
    """A titled section with a sentence that says how to read it."""
    heading = el("h2", title, id=f"{anchor}-title")
    return el("section", heading, el("p", lead, class_="lead"), *content, id=anchor, aria_labelledby=f"{anchor}-title")


def row(head: Child, *cells: Child, class_: str | None = None) -> Markup:
    """A table row: plain numbers and `<data>` are set right, text left."""
    return el("tr", head, (_cell(cell) for cell in cells), class_=class_)


def _cell(cell: Child) -> Markup:
    is_number = isinstance(cell, int) or (isinstance(cell, Markup) and cell.startswith("<data"))
    is_bar = isinstance(cell, Markup) and cell.startswith("<svg")
    return el("td", cell, class_="n" if is_number else "b" if is_bar else None)


def epochs_number(epochs: float) -> Markup:
    """Epochs, to two decimals or digits."""
    return number(epochs, f"{epochs:.2f}" if epochs >= 0.1 else f"{epochs:.2g}")
