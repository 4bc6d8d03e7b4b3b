"""Draws: they sum to the phase, and each is within one sample of its exact share."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from corpus.recipe.shares import draws, exact_shares


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(1e-6, 1e6), min_size=1), st.integers(0, 10**10))
def test_draws_are_exact(weights: dict[str, float], samples: int) -> None:
    result = draws(weights, samples)
    assert sum(result.values()) == samples
    for name, share in exact_shares(weights).items():
        assert abs(result[name] - share * samples) < 1


def test_published_columns_that_do_not_sum_to_100_are_normalised() -> None:
    column = {"a": 11.02, "b": 4.15, "c": 84.85}
    assert exact_shares(column)["a"] == Fraction(1102, 10002)
    assert sum(exact_shares(column).values()) == 1
