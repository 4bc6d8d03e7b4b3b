"""What a rank of the executor works on."""

from __future__ import annotations

from typing import NamedTuple


class Job(NamedTuple):
    """One unit of one stream."""

    plan: str
    unit: int
