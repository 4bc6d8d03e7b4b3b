"""The estimate: sizes and hours from catalogue and recipe alone."""

from pathlib import Path

import pytest

from corpus.recipe.estimate import estimate_json, make_estimate
from corpus.recipe.model import load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


def test_sizes_and_hours_follow_from_the_catalogue():
    recipe = load_recipe(RECIPES / "r1_phase2.yaml")
    estimate = make_estimate(recipe, rate=100, bandwidth=200)
    cosmopedia = estimate.sources["cosmopedia"]
    assert cosmopedia.download_bytes == 92_200_000_000 and "download_bytes" not in cosmopedia.estimated
    assert cosmopedia.text_bytes == int(25e9 * 4.5)
    assert estimate.tokenise_hours == pytest.approx(estimate.total("text_bytes")[0] / 100e6 / 3600)
    assert estimate.download_hours == pytest.approx(estimate.total("download_bytes")[0] / 200e6 / 3600)
    assert estimate_json(estimate)["totals"]["sources_of_unknown_size"] == []


def test_a_part_needs_less():
    recipe = load_recipe(RECIPES / "r1_phase2.yaml")
    whole, part = (make_estimate(recipe, rate=100, bandwidth=100, max_tokens=most) for most in (None, 10**9))
    assert part.tokens % (2048 * 2048) == 0 and 10**9 <= part.tokens < 10**9 + 2048 * 2048
    for name, source in part.sources.items():
        assert source.download_bytes < whole.sources[name].download_bytes
        assert source.used == pytest.approx(source.tokens_drawn / source.tokens_available)
