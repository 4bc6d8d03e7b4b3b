"""What a rank of the executor works on, and what for."""

from __future__ import annotations

from typing import NamedTuple

COLLECT = "collect"
"""The stage of a comparison in which it looks at all documents; the others are those of cleaning.comparisons.stages."""


class Job(NamedTuple):
    """One unit of one stream, or one job of a comparison that the stream takes part in."""

    plan: str
    unit: int


class Purpose(NamedTuple):
    """What jobs are for when they make no shards: a stage of one comparison of the recipe's cleaning."""

    step: int
    """Its place in the recipe's cleaning."""
    stage: str

    @property
    def looks_at_documents(self) -> bool:
        """Whether its jobs are units."""
        return self.stage == COLLECT
