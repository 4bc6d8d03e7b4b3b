"""The keys of near-deduplication: one for each band of datatrove's MinHash signature.

Text is compared as datatrove simplifies it (lower case, no punctuation or diacritics, numbers as 0) and split at
spaces; that gives the same words as spaCy on nearly all English text, ten times as fast and without needing it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.word_tokenizers import WordTokenizer
from numpy.typing import NDArray

from corpus.cleaning.comparisons.keys import KEY_BYTES

SHINGLES_AT_ONCE = 4096
"""Shingles hashed in one go; each takes 8 bytes per hash function, twice."""


def band_keys(ngram: int, buckets: int, hashes_per_bucket: int) -> Callable[[str], bytes | None]:
    """The text -> keys function; None for a text of fewer words than a shingle, which is always kept."""
    config = MinhashConfig(n_grams=ngram, num_buckets=buckets, hashes_per_bucket=hashes_per_bucket)
    signature = _Signature(".", config, _Spaces(""))

    def keys(text: str) -> bytes | None:
        shingles = signature.get_shingles(text)
        if not shingles.size:
            return None
        # A key stands for the band's numbers: a hash of them takes a quarter of the room.
        bands = np.array(signature.get_signature(shingles), "<u8")
        return b"".join(hashlib.blake2b(band.tobytes(), digest_size=KEY_BYTES).digest() for band in bands)

    return keys


class _Spaces(WordTokenizer):
    """Splits simplified text at spaces."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


class _Signature(MinhashDedupSignature):
    """datatrove's stage 1, which would hold (shingles x hash functions) numbers of a document at once."""

    def get_signature(self, shingles: NDArray[np.uint64]) -> list[list[int]]:
        parts = range(0, len(shingles), SHINGLES_AT_ONCE)
        signatures = [super(_Signature, self).get_signature(shingles[low : low + SHINGLES_AT_ONCE]) for low in parts]
        lowest: list[list[int]] = np.min(np.array(signatures, np.uint64), axis=0).tolist()
        return lowest
