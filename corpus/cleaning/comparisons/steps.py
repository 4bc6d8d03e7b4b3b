"""The comparisons' settings: exact_dedup, minhash."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from corpus.cleaning.step import Comparison


class ExactDedupStep(Comparison):
    """Drop documents whose text equals that of an earlier one (earlier: by source order, unit, place in the unit)."""

    step: Literal["exact_dedup"] = "exact_dedup"


class MinhashStep(Comparison):
    """Drop near-duplicates found by datatrove's MinHash; the earliest document of each cluster stays."""

    step: Literal["minhash"] = "minhash"
    ngram: int = Field(default=5, ge=1, le=64)
    """Words per shingle."""
    buckets: int = Field(default=14, ge=1, le=999)
    """Bands of the signature; two documents that agree on any one band are near-duplicates."""
    hashes_per_bucket: int = Field(default=8, ge=1, le=128)
    """Hashes per band; the similarity found half of the time is about (1 / buckets) ** (1 / hashes_per_bucket)."""
