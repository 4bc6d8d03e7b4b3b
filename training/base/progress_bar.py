"""Progress of long commands: a bar on a terminal, a plain line now and then elsewhere; both on stderr."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

LINE_EVERY = 10.0
"""Seconds between two lines when stderr is no terminal."""


class Progress:
    """Counts `total` units of work; use as a context manager."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._done, self._started = 0, time.monotonic()
        self._last_line = self._started
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, desc=self.label, unit=self.unit)
        return self

    def advance(self, amount: int = 1) -> None:
        """Some more is done."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(amount)
        elif (now := time.monotonic()) - self._last_line >= LINE_EVERY:
            self._last_line = now
            left = timedelta(seconds=round((now - self._started) / self._done * (self.total - self._done)))
            line = f"{self.label}: {self._done:,} of {self.total:,} {self.unit}, {left} left"
            print(line, file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
