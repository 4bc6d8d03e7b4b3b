"""Sections on the mixture: what is asked for, what is drawn, how often, and what must not be missed."""

from __future__ import annotations

from corpus.base.numbers import file_size, si
from corpus.records.manifest import Manifest
from corpus.report import charts
from corpus.report.html import Child, Markup, el, join, number, percent, table
from corpus.report.layout import Entry, epochs_number, row, section
from corpus.report.tables import MANY_EPOCHS


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
        ("most epochs", epochs_number(repeated.source.epochs), f"of {repeated.name}"),
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
            bar, join(epochs_number(entry.source.epochs), mark), class_="often" if often else None,
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
