"""An estimate as a table for people."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from corpus.base.numbers import file_size, si
from corpus.recipe.estimate import Estimate, SourceEstimate
from corpus.report.tables import console, epochs_text


def show_estimate(estimate: Estimate) -> None:
    """Print the estimate: the table, totals, how weights were normalised, gates, licences and notes."""
    table = Table(
        title=f"{estimate.recipe}: plan of {si(estimate.tokens)} tokens ({estimate.steps:,} steps)",
        title_justify="left",
    )
    for column in ("entry", "source", "asked", "weight", "available", "drawn", "epochs", "download", "streams"):
        table.add_column(column, justify="left" if column in ("entry", "source") else "right")
    for name, source in estimate.sources.items():
        table.add_row(
            escape(name), escape(source.source), f"{source.weight_asked:g}", f"{source.weight:.4f}",
            _figure(source, "tokens_available", si), si(source.tokens_drawn),
            "?" if source.epochs is None else epochs_text(source.epochs),
            _figure(source, "download_bytes", file_size),
            "?" if source.store_bytes is None else f"~{file_size(source.store_bytes)}",
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "all", "", f"{estimate.weight_sum:g}", "1", "", si(estimate.tokens), "",
        _at_least(estimate, "download_bytes"), _at_least(estimate, "store_bytes"),
    )  # fmt: skip
    out = console()
    out.print(table)
    for line in notes(estimate):
        out.print(escape(line), highlight=False, soft_wrap=True)


def notes(estimate: Estimate) -> list[str]:
    """What the table does not say, one thing per line."""
    lines = [
        f"Weights sum to {estimate.weight_sum:g}; each was divided by that sum."
        + ("" if estimate.weight_sum in (1, 100) else " (Printed columns rarely sum to 100 exactly.)"),
        f"Time: about {hours(estimate.download_hours)} to download at {estimate.bandwidth:g} MB/s, about "
        f"{hours(estimate.tokenise_hours)} to tokenise at {estimate.rate:.0f} MB/s ({estimate.rate_note}).",
        "Sources are fetched and tokenised whole, for other recipes to share; --max-tokens plans a part.",
        "~ is an estimate of ours; ? is unknown until built; ! is more than 4 epochs. Counts of tokens are upstream's, "
        "with other tokenizers.",
    ]
    for original, stand_in in estimate.replaced.items():
        more = f"the recipe changes: see `python -m corpus.sources {stand_in}`"
        lines.append(f"Stand-in: {stand_in} replaces {original} ({more}).")
    for name, source in estimate.sources.items():
        if source.too_often:
            lines.append(
                f"Warning: by our estimate '{name}' is repeated {source.epochs:.1f} times, more than its max_epochs "
                f"{source.max_epochs:g}; the build refuses that."
            )
    gated = {source.source: source for source in estimate.sources.values() if source.gate}
    for name, source in gated.items():
        instead = f"; ungated stand-in: {source.stand_ins[0]}" if source.stand_ins else ""
        lines.append(f"Gate: accept the terms of {name} at {source.gate}{instead}.")
    closed = [source for source in estimate.sources.values() if not source.redistributable]
    for source in closed:
        lines.append(f"Do not publish: {source.source} ({source.licence}).")
    licences: dict[str, list[str]] = {}
    for source in estimate.sources.values():
        if source.redistributable:
            licences.setdefault(source.licence, []).append(source.source)
    lines += [f"Licence: {licence}: {', '.join(names)}." for licence, names in licences.items()]
    lines += [f"Problem: {source.source}: {source.problem}" for source in estimate.sources.values() if source.problem]
    return lines


def hours(value: float) -> str:
    """A time in minutes, hours or days."""
    if value < 1:
        return f"{value * 60:.0f} minutes"
    return f"{value:.1f} hours" if value < 72 else f"{value / 24:.1f} days"


def _figure(source: SourceEstimate, field: str, shown: object) -> str:
    value = getattr(source, field)
    if value is None:
        return "?"
    return ("~" if field in source.estimated else "") + shown(value)  # type: ignore[operator]


def _at_least(estimate: Estimate, field: str) -> str:
    total, unknown = estimate.total(field)
    return f"{'>' if unknown else '~'}{file_size(total)}"
