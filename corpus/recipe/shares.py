"""How many samples of each source a phase draws."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction


def exact_shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Normalised weights as exact fractions of the decimals written in the recipe."""
    exact = {name: Fraction(repr(float(weight))) for name, weight in weights.items()}
    total = sum(exact.values())
    return {name: weight / total for name, weight in exact.items()}


def draws(weights: Mapping[str, float], samples: int) -> dict[str, int]:
    """Integer draws that sum to ``samples``, each within one of its exact share (largest remainders get the rest)."""
    shares = exact_shares(weights)
    whole = {name: int(share * samples) for name, share in shares.items()}
    left = samples - sum(whole.values())
    by_remainder = sorted(shares, key=lambda name: (whole[name] - shares[name] * samples, name))
    for name in by_remainder[:left]:
        whole[name] += 1
    return whole


def token_limit(samples: int, seq_len: int) -> int:
    """Ids that a scaled-down build takes of a source of which ``samples`` are drawn."""
    return max(1, samples) * (seq_len + 1)
