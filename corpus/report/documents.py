"""Sections on the documents: their lengths, those dropped, and some to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from corpus.records.manifest import Manifest
from corpus.records.stream import Documents
from corpus.report import charts
from corpus.report.html import Markup, el, join, number, percent, table
from corpus.report.layout import Entry, row, section
from corpus.report.samples import TokenBytes, sample


def lengths(manifest: Manifest, entries: list[Entry]) -> Markup:
    """Histograms of document lengths in tokens, all over the same bins."""
    counts = {entry.name: {int(bits): n for bits, n in entry.record.lengths.items()} for entry in entries}
    used = sorted({bits for by_bits in counts.values() for bits in by_bits} or {1})
    first, last = used[0], used[-1]
    figures = []
    for entry in entries:
        kept, text_tokens = entry.record.documents.kept, entry.record.tokens.text
        mean = f"{text_tokens / kept:,.0f} tokens on average" if kept else "no documents"
        figures.append(el(
            "figure",
            el("figcaption", el("strong", entry.title), el("small", mean)),
            charts.histogram(entry.name, counts[entry.name], first, last, manifest.seq_len, entry.colour),
        ))  # fmt: skip
    rows = (
        row(el("th", charts.bin_label(bits), scope="row"), *(counts[entry.name].get(bits, 0) for entry in entries))
        for bits in range(first, last + 1)
    )
    return section(
        "lengths",
        "Document lengths",
        f"Documents by their number of tokens, in bins that double (each label is a bin's smallest length). "
        f"The line marks one sample, {manifest.seq_len:,} tokens: documents right of it span several.",
        el("div", figures, class_="grid"),
        el("details", el("summary", "As a table"),
           table("Documents by length in tokens", ["tokens", *(entry.name for entry in entries)], rows)),
    )  # fmt: skip


def funnel(entries: list[Entry]) -> Markup:
    """From documents read to documents kept, reason by reason."""
    everything = Documents(
        read=sum(entry.record.documents.read for entry in entries),
        kept=sum(entry.record.documents.kept for entry in entries),
        dropped=_added(entry.record.documents.dropped for entry in entries),
        changed=_added(entry.record.documents.changed for entry in entries),
    )
    cards = [_funnel("all sources", join("all sources"), everything, "accent")] if len(entries) > 1 else []
    cards += [_funnel(entry.name, entry.title, entry.record.documents, entry.colour) for entry in entries]
    steps = {json.dumps(step, sort_keys=True): step for entry in entries for step in entry.record.cleaning}
    cleaning = (
        el("details", el("summary", f"Cleaning steps ({len(steps)})"),
           el("ol", (el("li", el("code", _step_text(step))) for step in steps.values()), class_="steps"))
        if steps else el("p", "The recipe has no cleaning steps.", class_="note")
    )  # fmt: skip
    return section(
        "drops",
        "From read to kept",
        "Documents read, those dropped under each reason (largest first), and those kept.",
        el("div", cards, class_="grid wide"),
        cleaning,
        _evaluations(entries),
    )


def _evaluations(entries: list[Entry]) -> Markup | None:
    """What decontamination could see of each evaluation set: "contaminated: 0" says nothing about the rest."""
    seen = {one.name: one for entry in entries for one in entry.record.evaluations}
    if not seen:
        return None
    rows = (
        row(el("th", one.name, scope="row"), one.examples, one.detectable, one.undetectable) for one in seen.values()
    )
    headings = ["evaluation file", "examples", "detectable", "undetectable"]
    note = "Undetectable examples have no text of enough words: documents that hold them are kept."
    return el("details", el("summary", f"What decontamination can see ({len(seen)})"),
              table("Examples of evaluation sets", headings, rows), el("p", note, class_="note"))  # fmt: skip


def _added(counts: Iterator[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for reason, count in one.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _step_text(step: dict[str, Any]) -> str:
    settings = {key: value for key, value in step.items() if key != "step" and value not in (None, [], {})}
    return f"{step.get('step', '?')} {json.dumps(settings, ensure_ascii=False)}" if settings else str(step.get("step"))


def _funnel(name: str, title: Markup, documents: Documents, class_: str) -> Markup:
    total = documents.read
    rows = [_funnel_row(name, "read", 0, total, total, "ghost")]
    left = total
    for reason, count in sorted(documents.dropped.items(), key=lambda item: (-item[1], item[0])):
        left -= count
        rows.append(_funnel_row(name, reason, left, count, total, "drop"))
    rows.append(_funnel_row(name, "kept", 0, documents.kept, total, class_))
    changed = ", ".join(f"{step} {count:,}" for step, count in sorted(documents.changed.items()))
    caption = f"Documents of {name}: read, dropped by reason, kept"
    return el(
        "figure",
        el("figcaption", el("strong", title)),
        el("table", el("caption", caption, class_="sr"), el("tbody", rows), class_="funnel"),
        el("p", f"Kept with their text rewritten: {changed}.", class_="note") if changed else None,
    )


def _funnel_row(source: str, label: str, start: int, count: int, total: int, class_: str) -> Markup:
    bar = charts.waterfall("funnel", source, label, start, count, total, class_)
    dropped = class_ == "drop"
    return row(
        el("th", label, scope="row"), bar, join(number(count, f"\u2212{count:,}" if dropped else None)),
        percent(count / total) if total else "", class_="dropped" if dropped else None,
    )  # fmt: skip


def samples(entries: list[Entry], token_bytes: TokenBytes) -> Markup:
    """Documents to look at, by source."""
    groups = []
    for place, entry in enumerate(entries):
        shown = [sample(document, entry.record, token_bytes) for document in entry.documents]
        content = shown or [el("p", "No documents of this source were kept for the report.", class_="note")]
        count = el("small", f"{len(shown)} document{'' if len(shown) == 1 else 's'}")
        groups.append(el("details", el("summary", el("strong", entry.title), count), content, class_="source",
                         open=place == 0))  # fmt: skip
    return section(
        "samples",
        "Sample documents",
        join("The first documents of each source: the text as it was tokenised, and the ids stored for it. Every "
             "token is shaded apart (its title is its id); ", el("b", "BOS", class_="key"), " and ",
             el("b", "EOS", class_="key"), " mark document boundaries. Invisible characters are spelled out, as ",
             Markup('<span class="ctl">U+202E</span>'), ", and bytes of a character that spans tokens as ",
             el("u", "E2 80", class_="key"), "."),
        el("div", groups, class_="samples"),
    )  # fmt: skip
