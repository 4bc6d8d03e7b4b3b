"""The results of an evaluation as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from training.evaluation.subject import Subject


def show(subject: Subject, results: dict[str, dict[str, Any]]) -> None:
    """Print the results of each kind, and where they are kept."""
    from rich.console import Console

    console = Console()
    # Piped output has no width of its own, and a table cut at 80 columns helps nobody.
    console = console if console.is_terminal else Console(width=120)
    for kind, result in results.items():
        console.print(_TABLES[kind](subject, result))
    if results.get("held_out", {}).get("other_weights_loaded"):
        console.print("note: the run started from other weights (--load), whose training data is not accounted for")
    console.print(f"results in {subject.root / 'eval'}", soft_wrap=True)


def _table(title: str, columns: list[str]) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def _wikitext_table(subject: Subject, result: dict[str, Any]) -> Table:
    table = _table(f"wikitext-2, {subject.checkpoint}", ["file", "perplexity", "loss", "windows", "published protocol"])
    table.add_row(
        result["file"], f"{result['perplexity']:.3f}", f"{result['loss']:.4f}",
        f"{result['windows']} x {result['window']}", "yes" if result["published_protocol"] else "no",
    )  # fmt: skip
    return table


def _held_out_table(subject: Subject, result: dict[str, Any]) -> Table:
    table = _table(
        f"held-out loss, {subject.checkpoint}", ["source", "loss", "perplexity", "samples", "seen", "weight"]
    )
    for name, each in result["sources"].items():
        seen = "yes: the run draws all of it" if each["seen_in_training"] else "no"
        table.add_row(
            name,
            f"{each['loss']:.4f}",
            f"{each['perplexity']:.3f}",
            f"{each['samples']}",
            seen,
            f"{each['weight']:.1%}",
        )
    table.add_row("mix", f"{result['loss']:.4f}", "", "", "", "", style="bold")
    return table


def _tasks_table(subject: Subject, result: dict[str, Any]) -> Table:
    table = _table(f"tasks, {subject.checkpoint}", ["task", "metric", "value", "stderr"])
    for task, metrics in result["results"].items():
        for key, value in metrics.items():
            metric, _, variant = key.partition(",")
            if not isinstance(value, float) or metric.endswith("_stderr"):
                continue
            error = metrics.get(f"{metric}_stderr,{variant}")
            spread = f"{error:.4f}" if isinstance(error, float) else ""
            table.add_row(task, metric if variant == "none" else f"{metric} ({variant})", f"{value:.4f}", spread)
    return table


_TABLES = {"wikitext": _wikitext_table, "held_out": _held_out_table, "tasks": _tasks_table}
