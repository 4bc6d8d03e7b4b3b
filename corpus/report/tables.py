"""Manifests and stream records as tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corpus.base.numbers import file_size, si
from corpus.recipe.model import Recipe
from corpus.recipe.published import PublishedManifest
from corpus.records.manifest import Manifest
from corpus.records.stream import Documents, StreamRecord
from corpus.streams.inventory import Inventory
from corpus.streams.made import units_to_make
from corpus.streams.plan import StreamPlan

MANY_EPOCHS = 4.0
"""Repeating data more often than this gets a mark: returns diminish beyond four epochs (Muennighoff et al. 2023)."""


def console() -> Console:
    """A console for stdout that does not wrap tables when piped."""
    out = Console()
    return out if out.is_terminal else Console(width=150)


def dropped_text(documents: Documents) -> str:
    """'12 (empty 10, too_long 2)'."""
    total = sum(documents.dropped.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in documents.dropped.items())
    return f"{total:,} ({reasons})" if total else "0"


def epochs_text(epochs: float) -> str:
    """Epochs with a mark above MANY_EPOCHS."""
    return f"{epochs:.2f} !" if epochs > MANY_EPOCHS else f"{epochs:.2f}"


def show_manifest(manifest: Manifest) -> None:
    """Print the token-count manifest."""
    table = Table(title=f"{escape(manifest.recipe)}: token-count manifest", title_justify="left")
    for column in (
        "source",
        "documents",
        "dropped",
        "tokens",
        "samples",
        "asked",
        "weight",
        "drawn",
        "tok drawn",
        "epochs",
    ):
        table.add_column(column, justify="left" if column in ("source", "dropped") else "right")
    table.add_column("licence", overflow="fold")
    drawn = sum(source.samples_drawn for source in manifest.sources.values())
    for name, source in manifest.sources.items():
        table.add_row(
            escape(name), f"{source.documents.kept:,}", escape(dropped_text(source.documents)), si(source.tokens),
            f"{source.samples:,}", f"{source.weight_asked:g}", f"{source.samples_drawn / drawn:.4f}",
            f"{source.samples_drawn:,}", si(source.tokens_drawn), epochs_text(source.epochs),
            escape(source.licence) + ("" if source.redistributable else " (do not publish)"),
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "all", f"{sum(s.documents.kept for s in manifest.sources.values()):,}",
        f"{sum(sum(s.documents.dropped.values()) for s in manifest.sources.values()):,}",
        si(sum(s.tokens for s in manifest.sources.values())), f"{sum(s.samples for s in manifest.sources.values()):,}",
        f"{manifest.weight_sum:g}", "1", f"{drawn:,}", si(manifest.tokens), "", "",
    )  # fmt: skip
    out = console()
    out.print(table)
    tokenizer = manifest.tokenizer
    out.print(
        f"{manifest.tokens:,} tokens = {manifest.steps:,} steps x {manifest.global_batch} x {manifest.seq_len}; "
        f"tokenizer {escape(tokenizer.name)} ({tokenizer.vocab_size:,} ids), boundary {manifest.boundary}",
        highlight=False,
    )
    if abs(manifest.weight_sum - 1) > 1e-9:
        out.print(f"weights as written sum to {manifest.weight_sum:g}; each was divided by that", highlight=False)
    if any(source.epochs > MANY_EPOCHS for source in manifest.sources.values()):
        out.print(f"! repeated more than {MANY_EPOCHS:g} times", highlight=False)
    out.print(f"fingerprint {manifest.fingerprint}", highlight=False)


def show_stream(record: StreamRecord) -> None:
    """Print one stream's record."""
    table = Table(
        title=f"stream of {escape(record.source)}: {escape(record.title)}", title_justify="left", show_header=False
    )
    rows = {
        "revision": record.revision,
        "licence": record.licence + ("" if record.redistributable else " (do not publish)"),
        "files": f"{record.files:,}" + (f", {file_size(record.file_bytes)}" if record.file_bytes is not None else ""),
        "documents": f"{record.documents.read:,} read, {record.documents.kept:,} kept",
        "dropped": dropped_text(record.documents),
        "changed": ", ".join(f"{step} {count:,}" for step, count in record.documents.changed.items()) or "0",
        "text": file_size(record.text_bytes),
        "tokens": f"{record.tokens.text:,} of text + {record.tokens.boundary:,} boundary = "
        f"{record.tokens.written:,} written + {record.tokens.remainder:,} left over",
        "samples": f"{record.samples:,} of {record.seq_len} + 1 ids ({record.dtype})",
        "shards": f"{record.shards:,}, {file_size(record.shard_bytes)}",
        "tokenizer": f"{record.tokenizer.name}, boundary {record.boundary}",
        "key": record.key,
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console().print(table)


def show_published(manifest: PublishedManifest) -> None:
    """Print a published reference as a table."""
    table = Table(title=f"{manifest.recipe}: published reference (nothing built)", title_justify="left")
    for column in ("source", "rows", "tokens", "asked", "weight", "tok drawn", "epochs"):
        table.add_column(column, justify="left" if column == "source" else "right")
    table.add_column("licence", overflow="fold")
    for name, source in manifest.sources.items():
        table.add_row(
            escape(name), "?" if source.published_rows is None else f"{source.published_rows:,}",
            "?" if source.published_tokens is None else si(source.published_tokens), f"{source.weight_asked:g}",
            f"{source.weight:.4f}", si(source.tokens_drawn),
            "?" if source.epochs is None else epochs_text(source.epochs),
            escape(source.licence) + ("" if source.redistributable else " (do not publish)"),
        )  # fmt: skip
    table.add_section()
    table.add_row("all", "", "", f"{manifest.weight_sum:g}", "1", si(manifest.tokens), "", "")
    out = console()
    out.print(table)
    out.print(
        f"{manifest.tokens:,} tokens = {manifest.steps:,} steps x {manifest.global_batch} x {manifest.seq_len}. "
        f"{escape(manifest.summary)}",
        highlight=False,
    )


def show_stream_plans(recipe: Recipe, plans: dict[str, StreamPlan]) -> None:
    """Print what a build would make."""
    table = Table(title=f"{recipe.name}: what would be built", title_justify="left")
    for column in ("entry", "stream", "files", "stored", "units", "to make", "licence"):
        table.add_column(column, justify="right" if column in ("files", "stored", "units", "to make") else "left")
    for name, plan in plans.items():
        to_make = 0 if plan.is_complete() else len(units_to_make(plan))
        table.add_row(
            name, plan.folder.name, str(len(plan.listing.files)), file_size(plan.listing.bytes),
            str(len(plan.units)), "done" if plan.is_complete() else str(to_make), escape(plan.source.licence),
        )  # fmt: skip
    Console().print(table)


def show_inventory(inventory: Inventory) -> None:
    """Print what a data folder holds: its builds, its streams with who uses them, and the rest."""
    out = console()
    builds = Table(title=f"{inventory.folder}: builds", title_justify="left")
    for column in ("build", "tokens", "steps", "sources", "made"):
        builds.add_column(column, justify="right" if column in ("tokens", "steps", "sources") else "left")
    for name, manifest in inventory.builds.items():
        made = str(manifest.built.get("finished", ""))
        builds.add_row(
            escape(name), si(manifest.tokens), f"{manifest.steps:,}", str(len(manifest.sources)), escape(made)
        )
    out.print(builds)
    streams = Table(title="streams", title_justify="left")
    for column in ("stream", "tokens", "length", "disk", "used by"):
        streams.add_column(column, justify="left" if column in ("stream", "used by") else "right", overflow="fold")
    for stream in inventory.streams:
        tokens, length = ("?", "?")
        if stream.record:
            tokens, length = si(stream.record.tokens.written), str(stream.record.seq_len)
        used = ", ".join(stream.builds) or ("nobody" if stream.record else "not complete")
        streams.add_row(escape(stream.name), tokens, length, file_size(stream.bytes), escape(used))
    out.print(streams)
    rest = {f"tokenizers/{name}": size for name, size in inventory.tokenizers.items()} | inventory.other
    for name, size in rest.items():
        out.print(f"{escape(name)}: {file_size(size)}", highlight=False)
    for path in inventory.unused:
        out.print(f"unused: {escape(str(path))}", highlight=False)
