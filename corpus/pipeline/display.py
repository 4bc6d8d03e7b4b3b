"""What a build shows while it works: one bar per source on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from corpus.base.numbers import file_size, si

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
    began: float | None = None
    """When the first of it was seen, by the clock of this process."""
    ended: float | None = None
    """When all of it was done: its rates stand still from then on."""

    def seen(self, now: float) -> None:
        """Note when work on it begins and ends."""
        if self.began is None and (self.done_bytes or self.documents):
            self.began = now
        if self.ended is None and self.done_bytes >= self.stored_bytes > 0:
            self.ended = now

    def seconds(self, now: float) -> float:
        """How long it has been worked on."""
        return max((self.ended or now) - (now if self.began is None else self.began), 1e-3)

    def left(self, now: float) -> float | None:
        """Seconds still to come, at the pace so far; None where there is none yet."""
        if self.began is None or not self.done_bytes or now - self.began < 1:
            return None
        return (self.stored_bytes - self.done_bytes) / self.done_bytes * (now - self.began)


class BuildDisplay:
    """Shows SourceTotals; use as a context manager around the work."""

    def __init__(self, totals: dict[str, SourceTotals], console: Console | None = None) -> None:
        self.totals = totals
        self.console = console or Console(stderr=True)
        self._last_line = time.monotonic()
        # Where each source stood when a line last told of it.
        self._told: dict[str, tuple[int, int]] = {}
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
        now = time.monotonic()
        for total in self.totals.values():
            total.seen(now)
        if self._bars is not None:
            self._refresh()
        elif now - self._last_line >= LINE_EVERY:
            self._last_line = now
            for name, total in self.totals.items():
                stands = total.done_bytes, total.documents
                if stands != self._told.get(name, (0, 0)):
                    self._told[name] = stands
                    say(self._line(name, total, now))

    def _line(self, name: str, total: SourceTotals, now: float) -> str:
        share = min(1.0, total.done_bytes / max(1, total.stored_bytes))
        if total.ended is not None:
            end = f"done in {_time(total.seconds(now))}"
        else:
            left = total.left(now)
            end = "" if left is None else f"about {_time(left)} left"
        stored = f"{file_size(total.done_bytes)} of {file_size(total.stored_bytes)}"
        return f"{name}: {share:.0%} ({stored})  {self._rates(total, now)}  {end}".rstrip()

    def _refresh(self) -> None:
        assert self._bars is not None
        now = time.monotonic()
        for name, total in self.totals.items():
            self._bars.update(self._tasks[name], completed=total.done_bytes, rates=self._rates(total, now))

    def _rates(self, total: SourceTotals, now: float) -> str:
        seconds = total.seconds(now)
        rates = [f"{total.documents / seconds:,.0f} doc/s", f"{total.text_bytes / seconds / 1e6:.1f} MB/s"]
        # A pass that compares documents makes no tokens.
        return "  ".join([*rates, f"{si(total.tokens / seconds)} tok/s"] if total.tokens else rates)


def _time(seconds: float) -> str:
    """A duration as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def say(text: str) -> None:
    """One line of news on stderr."""
    print(text, file=sys.stderr, flush=True)
