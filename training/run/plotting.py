"""Draws what runs did: loss, loss per source, learning rate and throughput."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = list[dict[str, Any]]


SMOOTH = 40
"""Curves are averaged over a window of 1/SMOOTH of their length; the raw loss stays visible behind."""


def running_steps(rows: Rows) -> list[int]:
    """Steps counted over all phases, for rows that count within theirs."""
    steps: list[int] = []
    before, phase, last = 0, rows[0]["phase"], 0
    for row in rows:
        if row["phase"] != phase:
            before, phase = before + last, row["phase"]
        last = row["step"]
        steps.append(before + last)
    return steps


def smooth(values: list[float], window: int) -> list[float]:
    """Mean of each value and up to `window` - 1 before it."""
    result: list[float] = []
    total = 0.0
    for index, value in enumerate(values):
        total += value
        if index >= window:
            total -= values[index - window]
        result.append(total / min(index + 1, window))
    return result


def draw(runs: dict[str, Rows], to: Path) -> Path:
    """Plot the metrics of one or more runs, by name, into the PNG file `to`; raises UserError when one has no steps."""
    from matplotlib import pyplot as plt

    figure = figure_of(runs)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)
    return to


def figure_of(runs: dict[str, Rows]) -> Figure:
    """The four plots; a source has one colour in all runs, and a run one dash, so that the legend stays short."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    colours = matplotlib.colormaps["tab20"]
    known = sorted({source for rows in runs.values() for row in rows for source in row["sources"]})
    figure, axes = plt.subplots(2, 2, figsize=(13, 8), layout="constrained")
    loss, sources, rate, speed = axes.flat
    for number, (name, rows) in enumerate(runs.items()):
        if not rows:
            raise UserError("no steps to plot", where=name)
        # Steps that were not applied stay in the metrics; a mean over a window must not carry their NaN along.
        applied = [(step, row) for step, row in zip(running_steps(rows), rows, strict=True) if "skipped" not in row]
        steps, rows, colour = [step for step, _ in applied], [row for _, row in applied], f"C{number}"
        window = max(1, len(rows) // SMOOTH)
        losses = [float(row["loss"]) for row in rows]
        loss.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
        loss.plot(steps, smooth(losses, window), color=colour, label=name)
        for index, source in enumerate(known):
            points = [
                (step, row["sources"][source])
                for step, row in zip(steps, rows, strict=True)
                if source in row["sources"]
            ]
            curve = smooth([value for _, value in points], max(1, len(points) // SMOOTH))
            sources.plot(
                [step for step, _ in points], curve, color=colours(index % 20), linestyle=STYLES[number % len(STYLES)]
            )
        rate.plot(steps, [row["lr"] for row in rows], color=colour, label=name)
        speed.plot(steps, smooth([row["tokens_per_s"] for row in rows], window), color=colour, label=name)
    titles = ("loss", "loss per source (smoothed)", "learning rate", "tokens/s (smoothed)")
    for axis, title in zip((loss, sources, rate, speed), titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        handles, _ = axis.get_legend_handles_labels()
        if axis is sources:
            handles = [Line2D([], [], color=colours(index % 20), label=source) for index, source in enumerate(known)]
            if len(runs) > 1:
                styles = zip(runs, STYLES * len(runs), strict=False)
                handles += [Line2D([], [], color="grey", linestyle=style, label=name) for name, style in styles]
        longest = max((len(str(handle.get_label())) for handle in handles), default=0)
        if len(handles) > MANY:  # below, where they cover no curve
            columns = max(1, min(len(handles), WIDE // (longest + 6)))
            axis.legend(
                handles=handles, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns
            )
        else:
            axis.legend(handles=handles, fontsize="small")
    return figure


STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 2)), (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)), (0, (3, 6)))
MANY = 6
"""Entries of a legend that are still put over the curves."""
WIDE = 90
"""Letters of a legend's row."""
