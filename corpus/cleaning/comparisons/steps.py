"""The comparisons' settings: exact_dedup, minhash."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from corpus.cleaning.reasons import DropReason
from corpus.cleaning.step import ComparisonStep, KeysOf


class ExactDedupStep(ComparisonStep):
    """Drop documents whose text equals that of an earlier one (earlier: by source order, unit, place in the unit)."""

    reason: ClassVar[DropReason] = "duplicate"
    step: Literal["exact_dedup"] = "exact_dedup"

    def keys(self) -> KeysOf:
        """A hash of the text."""
        from corpus.cleaning.comparisons.keys import content_key

        return content_key


class MinhashStep(ComparisonStep):
    """Drop near-duplicates found by datatrove's MinHash; the earliest document of each cluster stays."""

    reason: ClassVar[DropReason] = "near_duplicate"
    joins: ClassVar[bool] = True
    step: Literal["minhash"] = "minhash"
    ngram: int = Field(default=5, ge=1, le=64)
    """Words per shingle."""
    buckets: int = Field(default=14, ge=1, le=999)
    """Bands of the signature; two documents that agree on any one band are near-duplicates."""
    hashes_per_bucket: int = Field(default=8, ge=1, le=128)
    """Hashes per band; the similarity found half of the time is about (1 / buckets) ** (1 / hashes_per_bucket)."""

    @property
    def bands(self) -> int:
        """Keys per document."""
        return self.buckets

    def keys(self) -> KeysOf:
        """A hash of each band of the signature."""
        from corpus.cleaning.comparisons.minhash import band_keys

        return band_keys(self.ngram, self.buckets, self.hashes_per_bucket)
