"""The counts of the unit in hand."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.pipeline.heartbeat import leave


class Tally:
    """Counts of the unit in hand, shared by its steps."""

    def __init__(self) -> None:
        self.read = self.kept = self.text_bytes = self.text_tokens = self.boundary_tokens = self.samples = 0
        self.dropped: Counter[str] = Counter()
        self.first_drops: dict[str, str] = {}
        """Where the first record dropped for each reason is, and by which step."""
        self.changed: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.shown: list[dict[str, Any]] = []
        self.places: list[tuple[list[str], NDArray[np.int64]]] = []
        """Per batch: the kept documents' names, and their numbers of ids with boundary ids."""
        self.hits: list[dict[str, Any]] = []
        """Documents dropped as contaminated: {id, hits}."""
        self.full = False
        """Set when a sample has what it takes of the unit: the reader stops."""
        self.ended = False
        """Set when the unit was read to its end."""
        self._published = 0.0

    def drop(self, reason: str, place: str, step: str | None = None) -> None:
        """Count a dropped record; ``place`` is FILE:place."""
        self.dropped[reason] += 1
        self.first_drops.setdefault(reason, f"at {place}" if step is None else f"by {step} at {place}")

    def publish(self, path: Path, every: float = 0.5) -> None:
        """Leave the counts where the progress display finds them, at most once in ``every`` seconds."""
        now = time.monotonic()
        if now - self._published < every:
            return
        self._published = now
        leave(path, json.dumps(self.counts()))

    def counts(self) -> list[int]:
        """Documents, text bytes and tokens so far."""
        return [self.read, self.text_bytes, self.text_tokens]

    def summary(self) -> list[Any]:
        """The counts of a finished unit, and of one that kept nothing what its records were dropped for."""
        barren = [self.dropped, self.first_drops] if self.read and not self.text_bytes else None
        return [*self.counts(), barren]
