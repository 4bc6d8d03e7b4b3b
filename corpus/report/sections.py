"""The sections of the report, each from the manifest and the records of its streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from corpus.base.numbers import file_size, si
from corpus.records.manifest import Manifest, ManifestSource
from corpus.records.stream import Documents, StreamRecord
from corpus.report import charts
from corpus.report.html import Child, Markup, el, join, link, number, percent, table
from corpus.report.samples import SampleDocument, TokenBytes, sample
from corpus.report.tables import MANY_EPOCHS


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


def key_figures(manifest: Manifest, entries: list[Entry]) -> Markup:
    """The build in six numbers."""
    read = sum(entry.source.documents.read for entry in entries)
    kept = sum(entry.source.documents.kept for entry in entries)
    stored = sum(entry.source.tokens for entry in entries)
    repeated = max(entries, key=lambda entry: entry.source.epochs)
    figures: list[tuple[str, Markup, Child]] = [
        ("tokens of the phase", number(manifest.tokens, si(manifest.tokens)),
         f"{manifest.steps:,} steps \u00d7 {manifest.global_batch:,} samples \u00d7 {manifest.seq_len:,}"),
        ("tokens stored", number(stored, si(stored)),
         file_size(sum(entry.record.shard_bytes for entry in entries)) + " of compressed shards"),
        ("documents kept", number(kept, si(kept)),
         f"of {read:,} read ({100 * kept / read:.1f}%)" if read else "none read"),
        ("sources", number(len(entries)), f"{sum(entry.record.files for entry in entries):,} files"),
        ("most epochs", _epochs(repeated.source.epochs), f"of {repeated.name}"),
        ("ids of the vocabulary", number(manifest.tokenizer.vocab_size), manifest.tokenizer.name),
    ]  # fmt: skip
    return el(
        "dl",
        (el("div", el("dt", name), el("dd", value, el("small", note))) for name, value, note in figures),
        class_="figures",
    )


def notices(manifest: Manifest, entries: list[Entry]) -> Markup | None:
    """What a reader must not miss."""
    lines = []
    private = [entry.name for entry in entries if not entry.source.redistributable]
    if private:
        what = f"the streams of {', '.join(private)}. Their licences do not allow passing them on."
        lines.append(join(el("strong", "Do not publish: "), what))
    often = [f"{entry.name} ({entry.source.epochs:.2f})" for entry in entries if entry.source.epochs > MANY_EPOCHS]
    if often:
        lines.append(join(el("strong", f"Repeated more than {MANY_EPOCHS:g} times: "), ", ".join(often) + "."))
    if abs(manifest.weight_sum - 1) > 1e-9:
        lines.append(join(f"The weights as written sum to {manifest.weight_sum:g}; each was divided by that."))
    partial = [entry.name for entry in entries if entry.record.token_limit is not None]
    if partial:
        lines.append(join(f"Scaled-down build: reading stopped at a token limit in {', '.join(partial)}."))
    return el("ul", (el("li", line) for line in lines), class_="notices") if lines else None


def mix(manifest: Manifest, entries: list[Entry]) -> Markup:
    """The mix asked for and the one the phase draws."""
    asked = {entry.name: entry.source.weight for entry in entries}
    total = sum(entry.source.samples_drawn for entry in entries)
    realised = {entry.name: entry.source.samples_drawn / total for entry in entries}
    scale = max([*asked.values(), *realised.values()])
    rows = []
    for entry in entries:
        bars = join(
            charts.bar("share asked", entry.name, asked[entry.name], scale, "ghost"),
            charts.bar("share realised", entry.name, realised[entry.name], scale, entry.colour),
        )
        rows.append(row(
            entry.head, bars, number(entry.source.weight_asked, f"{entry.source.weight_asked:g}"),
            percent(asked[entry.name]), percent(realised[entry.name]),
            entry.source.samples_drawn, entry.source.tokens_drawn,
        ))  # fmt: skip
    rows.append(row(
        el("th", "all", scope="row"), "", number(manifest.weight_sum, f"{manifest.weight_sum:g}"),
        percent(sum(asked.values())), percent(sum(realised.values())), total,
        sum(entry.source.tokens_drawn for entry in entries), class_="total",
    ))  # fmt: skip
    return section(
        "mix",
        "Mix",
        "The share of each source as the recipe asks for it (pale), and as the phase draws it in whole samples.",
        el("div", charts.strip("asked", asked), charts.strip("realised", realised), class_="figure"),
        table("Mix asked and realised",
              ["source", "share", "weight", "asked", "realised", "samples drawn", "tokens drawn"], rows, (0, 1)),
    )  # fmt: skip


def tokens(entries: list[Entry]) -> Markup:
    """What each stream holds, and how often the phase goes through it."""
    most = max(entry.source.tokens for entry in entries)
    scale = max(1.0, *(entry.source.epochs for entry in entries))
    rows = []
    for entry in entries:
        often = entry.source.epochs > MANY_EPOCHS
        mark = el("span", f"above {MANY_EPOCHS:g}", class_="bad") if often else None
        bar = charts.bar("epochs", entry.name, entry.source.epochs, scale, "warn" if often else entry.colour,
                         (1.0, MANY_EPOCHS))  # fmt: skip
        rows.append(row(
            entry.head, charts.bar("tokens", entry.name, entry.source.tokens, most, entry.colour),
            entry.source.tokens, entry.source.samples, entry.source.tokens_drawn,
            bar, join(_epochs(entry.source.epochs), mark), class_="often" if often else None,
        ))  # fmt: skip
    rows.append(row(
        el("th", "all", scope="row"), "", sum(entry.source.tokens for entry in entries),
        sum(entry.source.samples for entry in entries), sum(entry.source.tokens_drawn for entry in entries), "", "",
        class_="total",
    ))  # fmt: skip
    return section(
        "tokens",
        "Tokens and epochs",
        f"What each stream stores, and how many times the phase goes through it. Lines mark one epoch and "
        f"{MANY_EPOCHS:g}, beyond which repeated data teaches less and less.",
        table("Tokens and epochs by source",
              ["source", "stored", "tokens stored", "samples", "tokens drawn", "repetition", "epochs"], rows,
              (0, 1, 5)),
    )  # fmt: skip


def _epochs(epochs: float) -> Markup:
    return number(epochs, f"{epochs:.2f}" if epochs >= 0.1 else f"{epochs:.2g}")


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
    )


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


def accounting(entries: list[Entry]) -> Markup:
    """text + boundary = written + remainder, for each source."""
    rows = []
    for entry in entries:
        tokens, size = entry.record.tokens, entry.record.text_bytes
        balanced = tokens.text + tokens.boundary == tokens.written + tokens.remainder
        rows.append(row(
            entry.head, tokens.text, tokens.boundary, tokens.written, tokens.remainder,
            el("span", "balanced", class_="good") if balanced else el("span", "does not add up", class_="bad"),
            number(size, file_size(size)),
            number(size / tokens.text, f"{size / tokens.text:.2f}") if tokens.text else "",
            entry.record.shards, number(entry.record.shard_bytes, file_size(entry.record.shard_bytes)),
        ))  # fmt: skip
    total = [entry.record.tokens for entry in entries]
    rows.append(row(
        el("th", "all", scope="row"), sum(one.text for one in total), sum(one.boundary for one in total),
        sum(one.written for one in total), sum(one.remainder for one in total), "",
        number(sum(entry.record.text_bytes for entry in entries),
               file_size(sum(entry.record.text_bytes for entry in entries))),
        "", sum(entry.record.shards for entry in entries),
        number(sum(entry.record.shard_bytes for entry in entries),
               file_size(sum(entry.record.shard_bytes for entry in entries))), class_="total",
    ))  # fmt: skip
    return section(
        "accounting",
        "Token accounting",
        "No token is lost: those of the text and the boundary ids added to them are all written, but for a remainder "
        "of less than one sample.",
        table("Token accounting", ["source", "text", "+ boundary", "= written", "+ remainder", "check", "text size",
                                   "bytes per token", "shards", "stored"], rows, (0, 5)),
    )  # fmt: skip


def licences(entries: list[Entry]) -> Markup:
    """Where each source comes from and what its licence allows."""
    rows = []
    for entry in entries:
        allowed = entry.source.redistributable
        rows.append(row(
            entry.head, entry.record.title, link(entry.source.licence, entry.record.licence_url),
            el("span", "may be passed on" if allowed else "do not publish", class_="good" if allowed else "bad"),
            _origin(entry.record), class_=None if allowed else "private",
        ))  # fmt: skip
    return section(
        "licences",
        "Licences",
        "A stream carries the licence of the data it was made from.",
        table("Licences", ["source", "data set", "licence", "streams", "origin"], rows, range(5)),
    )


def _origin(record: StreamRecord) -> Child:
    origin, kind = record.origin, record.origin.get("kind")
    if kind == "hub":
        repo = str(origin.get("repo"))
        return link(repo, f"https://huggingface.co/datasets/{repo}/tree/{record.revision}")
    if kind == "urls":
        listed = [str(url) for url in origin.get("urls") or []]
        first = str(origin.get("url_list") or (listed[0] if listed else "URLs"))
        more = f" and {len(listed) - 1:,} more" if not origin.get("url_list") and len(listed) > 1 else ""
        return join(link(first, first), more)
    if kind == "s3":
        return ", ".join(map(str, origin.get("paths") or []))
    if kind == "embedded":
        return f"every Python installation ({origin.get('name')})"
    return "local files"


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


def provenance(manifest: Manifest, entries: list[Entry]) -> Markup:
    """Revisions, fingerprints and versions: what is needed to make the same bytes again."""
    rows = (
        row(entry.head, entry.source.source, *(el("code", value) for value in (
            entry.source.revision, entry.record.key, entry.source.stream_fingerprint, entry.record.index_sha256)))
        for entry in entries
    )  # fmt: skip
    tokenizer = manifest.tokenizer
    facts: list[tuple[str, str]] = [
        ("manifest fingerprint", manifest.fingerprint),
        ("recipe fingerprint", manifest.recipe_sha256),
        ("seed", str(manifest.seed)),
        ("tokenizer", f"{tokenizer.name}, {tokenizer.vocab_size:,} ids, BOS {_id(tokenizer.bos_id)}, "
                      f"EOS {_id(tokenizer.eos_id)}"),
        ("tokenizer file", tokenizer.sha256),
        ("boundary", manifest.boundary),
        ("document mask", "yes" if manifest.document_mask else "no"),
        *_flat(manifest.built),
    ]  # fmt: skip
    return section(
        "provenance",
        "Provenance",
        "The same recipe, revisions and versions give the same bytes again.",
        table("Revisions", ["source", "catalogue name", "revision", "stream key", "stream fingerprint", "index hash"],
              rows, range(6)),
        el("dl", (el("div", el("dt", name), el("dd", el("code", value))) for name, value in facts), class_="facts"),
    )  # fmt: skip


def _id(token_id: int | None) -> str:
    return "none" if token_id is None else str(token_id)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{key} ")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
