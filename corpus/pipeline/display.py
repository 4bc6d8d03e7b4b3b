"""What a build shows while it works: one bar per source on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from corpus.base.numbers import si

LINE_EVERY = 10.0
"""Seconds between two lines when the output is no terminal."""


@dataclass
class SourceTotals:
    """Where one source stands in this run."""

    stored_bytes: int
    """Bytes of its units that this run makes."""
    done_bytes: int = 0
    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0


class BuildDisplay:
    """Shows SourceTotals; use as a context manager around the work."""

    def __init__(self, totals: dict[str, SourceTotals], console: Console | None = None) -> None:
        self.totals = totals
        self.console = console or Console(stderr=True)
        self.started = self._last_line = time.monotonic()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> BuildDisplay:
        if self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[rates]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bars.start()
            for name, total in self.totals.items():
                self._tasks[name] = self._bars.add_task(name, total=max(1, total.stored_bytes), rates="")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._refresh()
            self._bars.stop()

    def update(self) -> None:
        """Show the totals as they are now."""
        if self._bars is not None:
            self._refresh()
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            for name, total in self.totals.items():
                share = total.done_bytes / max(1, total.stored_bytes)
                if 0 < share < 1 or total.documents:
                    print(f"{name}: {share:.0%} {self._rates(total)}", file=sys.stderr, flush=True)

    def _refresh(self) -> None:
        assert self._bars is not None
        for name, total in self.totals.items():
            self._bars.update(self._tasks[name], completed=total.done_bytes, rates=self._rates(total))

    def _rates(self, total: SourceTotals) -> str:
        seconds = max(time.monotonic() - self.started, 1e-3)
        return (
            f"{total.documents / seconds:,.0f} doc/s  {total.text_bytes / seconds / 1e6:.1f} MB/s  "
            f"{si(total.tokens / seconds)} tok/s"
        )


def say(text: str) -> None:
    """One line of news on stderr."""
    print(text, file=sys.stderr, flush=True)
