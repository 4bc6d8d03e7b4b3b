"""Exact shares and exact coverage of the mixture, on arithmetic alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.base.errors import UserError
from training.data.mixture import Cycle, EpochPlan, arrange_epoch, plan_epochs

weight = st.one_of(
    st.floats(1e-7, 1e3, allow_nan=False), st.sampled_from([1.0, 0.5, 11.02, 65.63, 1e-9, 3.0, 1 / 3, 0.0001])
)


def _check_plan(plan: EpochPlan, weights: list[float], steps: int, batch: int, epoch_samples: int) -> None:
    exact = [Fraction(str(w)) for w in weights]
    total = sum(exact)
    sizes = np.diff(plan.step_ends)
    assert plan.step_ends[0] == 0 and plan.step_ends[-1] == plan.total_steps == steps
    assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1
    assert plan.epochs == min(steps, -(-steps * batch // epoch_samples))
    assert (np.diff(plan.draws, axis=0) >= 0).all(), "a source gave a sample back"
    for end, row in zip(plan.step_ends.tolist(), plan.draws.tolist(), strict=True):
        assert sum(row) == end * batch
        for drawn, share in zip(row, exact, strict=True):
            assert abs(drawn - end * batch * share / total) < 1


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(weight, min_size=1, max_size=14),
    steps=st.integers(1, 150),
    batch=st.integers(1, 64),
    epoch_samples=st.integers(1, 400),
)
# Many sources whose share of an epoch is far below one sample: rounding each end on its own is not monotone here.
@example(weights=[1.0] + [0.001] * 13, steps=150, batch=1, epoch_samples=1)
@example(weights=[1.0] * 13, steps=149, batch=1, epoch_samples=1)
def test_shares_are_exact_at_every_epoch_end(weights: list[float], steps: int, batch: int, epoch_samples: int) -> None:
    _check_plan(plan_epochs(weights, steps, batch, epoch_samples), weights, steps, batch, epoch_samples)


def test_shares_do_not_drift_at_the_size_of_a_published_phase() -> None:
    weights = [11.02, 4.15, 65.63, 2.93, 5.39, 7.62, 3.28]
    _check_plan(plan_epochs(weights, 500_000, 2048, 1 << 20), weights, 500_000, 2048, 1 << 20)


def test_epoch_of_every_step() -> None:
    plan = plan_epochs([1.0], total_steps=7, global_batch=2, virtual_epoch_samples=5)
    epochs = [plan.epoch_of(step) for step in range(8)]
    assert epochs == [e for e in range(plan.epochs) for _ in range(plan.samples(e) // 2)] + [plan.epochs]
    with pytest.raises(ValueError, match="outside"):
        plan.epoch_of(8)


@pytest.mark.parametrize("weights", [[], [0.0, 1.0], [-1.0]])
def test_weights_must_be_positive(weights: list[float]) -> None:
    with pytest.raises(UserError, match="weight above 0"):
        plan_epochs(weights, 1, 1, 1)


def _sources() -> tuple[list[int], list[list[int]], int]:
    """Sources and a phase that sees them 0.04, 0.9, 1.05 and 38.8 times."""
    epochs = [0.04, 0.9, 1.05, 38.8]
    samples = [5000, 1000, 2000, 50]
    draws = [round(e * n) for e, n in zip(epochs, samples, strict=True)]
    rng = np.random.default_rng(0)
    shards = []
    for n in samples:
        cuts = np.sort(rng.choice(np.arange(1, n), size=min(n // 20, 40), replace=False)).tolist()
        shards.append(np.diff([0, *cuts, n]).tolist())
    return draws, shards, sum(draws)


@pytest.mark.parametrize("epoch_samples", [70, 513, 1 << 20])
def test_every_sample_is_seen_floor_or_ceil_times(epoch_samples: int) -> None:
    draws, shards, total = _sources()
    plan = plan_epochs([float(d) for d in draws], total, 1, epoch_samples)
    cycles = [Cycle(f"source{i}", sizes, seed=3) for i, sizes in enumerate(shards)]
    seen = np.zeros(sum(map(sum, shards)), np.int64)
    for epoch in range(plan.epochs):
        sizes, ids = arrange_epoch(plan, cycles, epoch)
        assert sizes.sum() == len(ids) == plan.samples(epoch)
        np.add.at(seen, ids, 1)
    begin = 0
    for drawn, sizes in zip(draws, shards, strict=True):
        counts = seen[begin : begin + sum(sizes)]
        floor, extra = divmod(drawn, sum(sizes))
        assert counts.min() >= floor and counts.max() <= floor + 1
        assert int((counts == floor + 1).sum()) == extra
        begin += sum(sizes)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    cuts=st.lists(st.integers(0, 120), min_size=2, max_size=8),
    seed=st.integers(0, 1 << 40),
)
def test_windows_tile_the_cycle(sizes: list[int], cuts: list[int], seed: int) -> None:
    """Adjacent windows join to what one window gives: nothing lost or doubled where a window cuts a shard."""
    cycle = Cycle("s", sizes, seed)

    def samples(begin: int, end: int) -> list[tuple[int, int]]:
        pieces = cycle.window(begin, end)
        assert (pieces.sizes > 0).all()
        rows = zip(pieces.shards.tolist(), pieces.begins.tolist(), pieces.sizes.tolist(), strict=True)
        return [(shard, begin + i) for shard, begin, size in rows for i in range(size)]

    cuts = sorted(cuts)
    whole = samples(cuts[0], cuts[-1])
    joined = [x for a, b in zip(cuts[:-1], cuts[1:], strict=True) for x in samples(a, b)]
    assert joined == whole and len(whole) == cuts[-1] - cuts[0]
    one_pass = samples(2 * cycle.samples, 3 * cycle.samples)
    assert sorted(one_pass) == [(s, i) for s, n in enumerate(sizes) for i in range(n)]


def test_order_of_a_pass_is_pinned() -> None:
    """The order is part of what a checkpoint relies on; a change here breaks every running job."""
    cycle = Cycle("wiki", [1] * 8, seed=17)
    assert cycle.window(0, 16).shards.tolist() == [4, 6, 2, 7, 5, 0, 3, 1, 0, 1, 4, 3, 7, 6, 2, 5]


def test_passes_names_and_seeds_order_differently() -> None:
    first = Cycle("a", [1] * 50, 1).window(0, 100).shards
    assert first[:50].tolist() != first[50:].tolist()
    assert first.tolist() != Cycle("b", [1] * 50, 1).window(0, 100).shards.tolist()
    assert first.tolist() != Cycle("a", [1] * 50, 2).window(0, 100).shards.tolist()


def test_empty_stream_is_refused() -> None:
    with pytest.raises(UserError, match="'wiki' holds no samples"):
        Cycle("wiki", [0, 0], 1)
