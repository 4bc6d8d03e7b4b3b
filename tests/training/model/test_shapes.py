"""Sizes: published integers, FLOPs against the documented figures, overrides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.base.errors import UserError
from corpus.recipe.training import ModelOverrides
from training.model.shapes import (
    CURRICULA,
    SIZES,
    apply_overrides,
    flops_per_token,
    get_size,
    parameter_count,
    scaled_down,
)

PUBLISHED = {
    "125m": 124_635_456,
    "350m": 345_355_200,
    "600m": 603_188_352,
    "1b": 1_005_461_760,
    "1.5b": 1_511_188_800,
    "140m": 140_248_512,
    "360m": 359_431_168,
    "950m": 949_685_760,
    "pro": 1_084_453_120,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameter_counts_equal_the_published_checkpoints(name: str, count: int) -> None:
    assert parameter_count(SIZES[name]) == count == SIZES[name].published


def test_sharing_layers_adds_no_parameters() -> None:
    for name in ("125m", "350m"):
        assert parameter_count(SIZES[f"{name}-ls"]) == parameter_count(SIZES[name]) == SIZES[f"{name}-ls"].published


def test_every_issue_size_exists_and_tiny_is_small() -> None:
    assert set(SIZES) == {*PUBLISHED, "125m-ls", "350m-ls", "tiny"}
    assert 1_000_000 < parameter_count(SIZES["tiny"]) < 2_000_000
    assert {cfg.family for cfg in SIZES.values()} == set(CURRICULA)
    assert CURRICULA["r1"] == ("r1_phase1", "r1_phase2", "r1_mid1", "r1_mid2")


@pytest.mark.parametrize(
    ("name", "seq_len", "gflop"),
    [("125m", 2048, 0.96), ("125m-ls", 2048, 1.81), ("350m", 2048, 2.45), ("350m-ls", 2048, 4.71), ("950m", 4096, 6.5)],
)
def test_flops_per_token_match_the_documented_figures(name: str, seq_len: int, gflop: float) -> None:
    assert flops_per_token(SIZES[name], seq_len) / 1e9 == pytest.approx(gflop, abs=0.05 if gflop == 6.5 else 0.005)


def _causal_products(seq_len: int, window: int | None) -> int:
    return sum(min(at + 1, window or seq_len) for at in range(seq_len))


@given(st.integers(2, 2000))
def test_attention_flops_follow_the_keys_each_query_sees(seq_len: int) -> None:
    cfg = SIZES["pro"]
    flops = flops_per_token(cfg, seq_len) - flops_per_token(cfg, 0)
    keys = sum(
        _causal_products(seq_len, None if cfg.is_global(layer) else cfg.sliding_window) for layer in range(cfg.layers)
    )
    # The documented formula drops the half key that a query shares with itself.
    assert flops == pytest.approx(12 * cfg.dim * (keys / seq_len - cfg.layers / 2), rel=0.01)


def test_unknown_size_names_the_nearest() -> None:
    assert get_size("950M") is SIZES["950m"]
    with pytest.raises(UserError, match=r"unknown size '125m-l'.*Did you mean '125m-ls'\?"):
        get_size("125m-l")


def test_with_vocab_forgets_the_published_count() -> None:
    cfg = SIZES["125m"]
    assert cfg.with_vocab(32_000) is cfg
    assert cfg.with_vocab(8000).published is None
    assert parameter_count(cfg) - parameter_count(cfg.with_vocab(8000)) == 24_000 * 576


def test_overrides_replace_what_they_name_only() -> None:
    assert apply_overrides(SIZES["950m"], ModelOverrides()) == SIZES["950m"]
    assert apply_overrides(SIZES["950m"], ModelOverrides(rope_theta=8e6)).rope_theta == 8e6
    assert not apply_overrides(SIZES["950m"], ModelOverrides(qk_norm=False)).qk_norm
    changed = apply_overrides(SIZES["pro"], ModelOverrides(global_layers=[29, 3, 3]))
    assert changed.global_layers == (3, 29)


def test_overrides_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="has no sliding window"):
        apply_overrides(SIZES["125m"], ModelOverrides(global_layers=[0]))
    with pytest.raises(UserError, match=r"has no layer 30.*0\.\.29"):
        apply_overrides(SIZES["pro"], ModelOverrides(global_layers=[30]))


@pytest.mark.parametrize("name", SIZES)
def test_scaled_down_keeps_the_features(name: str) -> None:
    cfg, small = SIZES[name], scaled_down(SIZES[name])
    assert parameter_count(small) < 2_000_000
    assert small.heads * cfg.kv_heads == cfg.heads * small.kv_heads
    for feature in ("family", "rope_layout", "rope_theta", "qk_norm", "layer_repeat", "norm_eps", "tied"):
        assert getattr(small, feature) == getattr(cfg, feature)
    assert (small.sliding_window is None) == (cfg.sliding_window is None)
