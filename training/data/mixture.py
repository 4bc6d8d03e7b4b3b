"""Which samples each virtual epoch of a phase draws: exact shares, exact coverage, whatever reads them.

A phase of T optimiser steps is cut into virtual epochs of whole steps. At the end of each epoch every source has been
drawn its share of the samples so far, within one sample (:func:`plan_epochs`). The draws of a source are a moving
window over an endless cycle: pass c over the source visits its shards in an order of its own, keyed by seed, source
name and c (:class:`Cycle`). So over the phase each sample of a source is seen floor(epochs) or ceil(epochs) times.

Arrays are of size O(shards) and O(samples of one epoch); nothing is ever as long as a source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EpochPlan:
    """The virtual epochs of a phase and what each draws from every source."""

    global_batch: int
    """Samples per optimiser step."""
    step_ends: Ints
    """Shape (epochs + 1,): epoch e covers steps [step_ends[e], step_ends[e + 1])."""
    draws: Ints
    """Shape (epochs + 1, sources): samples drawn from each source before epoch e; row sums are step_ends * batch."""

    @property
    def epochs(self) -> int:
        """Number of virtual epochs."""
        return len(self.step_ends) - 1

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the phase."""
        return int(self.step_ends[-1])

    def epoch_of(self, step: int) -> int:
        """The virtual epoch that 0-based `step` belongs to; `total_steps` maps to `epochs`, one past the last."""
        if not 0 <= step <= self.total_steps:
            raise ValueError(f"step {step} is outside a phase of {self.total_steps} steps")
        return int(np.searchsorted(self.step_ends, step, side="right")) - 1

    def samples(self, epoch: int) -> int:
        """Samples that `epoch` draws over all sources."""
        return int(self.step_ends[epoch + 1] - self.step_ends[epoch]) * self.global_batch


def plan_epochs(
    weights: Sequence[float | Fraction], total_steps: int, global_batch: int, virtual_epoch_samples: int
) -> EpochPlan:
    """Cut a phase into near-equal virtual epochs and share each epoch's samples out to the sources.

    Epochs differ by at most one step; each has at least one. At every epoch end e, with n samples drawn in all, source
    i has floor(n w_i) or ceil(n w_i) of them, and never fewer than at the end before. `weights` need not sum to 1.
    """
    if total_steps < 1 or global_batch < 1 or virtual_epoch_samples < 1:
        raise UserError("a phase needs at least one step, a global batch and a virtual epoch of at least one sample")
    shares = _integer_shares(weights)
    epochs = min(total_steps, ceil(Fraction(total_steps * global_batch, virtual_epoch_samples)))
    step_ends = np.array([e * total_steps // epochs for e in range(epochs + 1)], np.int64)
    draws = np.zeros((epochs + 1, len(shares)), np.int64)
    drawn = [0] * len(shares)
    for epoch, end in enumerate(step_ends[1:].tolist(), start=1):
        drawn = _share_out(shares, drawn, end * global_batch)
        draws[epoch] = drawn
    return EpochPlan(global_batch, step_ends, draws)


def _integer_shares(weights: Sequence[float | Fraction]) -> list[int]:
    # A float stands for its shortest decimal text, as it was written in the recipe; integers from there on, so that
    # nothing drifts however many samples are drawn.
    exact = [w if isinstance(w, Fraction) else Fraction(str(w)) for w in weights]
    if not exact or min(exact) <= 0:
        raise UserError("every source of a mixture needs a weight above 0")
    scale = lcm(*(w.denominator for w in exact))
    return [int(w * scale) for w in exact]


def _share_out(shares: list[int], drawn: list[int], samples: int) -> list[int]:
    """Cumulative draws at `samples`, given the draws at the epoch end before.

    Rounding each end on its own could take a sample back from a source whose share of an epoch is below one sample.
    Instead each draw is a job with a release (the quota's ceiling allows it) and a deadline (the quota's floor demands
    it). A schedule that meets both exists for any weights (Balinski and Young's quota method is one), and
    earliest-deadline-first finds one whenever one exists.
    """
    total = sum(shares)
    floors = [samples * share // total for share in shares]
    result = [max(before, floor) for before, floor in zip(drawn, floors, strict=True)]
    waiting = [
        (-(-(floors[i] + 1) * total // share), i)
        for i, share in enumerate(shares)
        if result[i] == floors[i] and samples * share % total
    ]
    spare = samples - sum(result)
    assert 0 <= spare <= len(waiting), "no integer sharing within quota"
    for _, i in sorted(waiting)[:spare]:
        result[i] += 1
    return result


@dataclass(frozen=True)
class Pieces:
    """Contiguous ranges of shards, in the order of a source's cycle; three arrays of one length."""

    shards: Ints
    """0-based shard within the source."""
    begins: Ints
    """First sample of the range within its shard."""
    sizes: Ints
    """Samples in the range, at least 1."""


class Cycle:
    """An endless pass after pass over one source, shards in a fresh keyed order each time."""

    def __init__(self, name: str, shard_samples: Sequence[int] | Ints, seed: int) -> None:
        """`shard_samples`: samples of each shard, shape (shards,); the order depends on `name` and `seed` alone."""
        self.name = name
        self.seed = seed
        self.shard_samples = np.asarray(shard_samples, np.int64)
        self.samples = int(self.shard_samples.sum())
        if self.samples < 1:
            raise UserError(f"stream '{name}' holds no samples", fix="Build it again, or drop it from the mixture.")
        self._latest: tuple[int, tuple[Ints, Ints]] | None = None

    def _pass(self, number: int) -> tuple[Ints, Ints]:
        # Neighbouring epochs mostly read from the same pass, so the latest one is kept.
        if self._latest is None or self._latest[0] != number:
            self._latest = number, self._order_pass(number)
        return self._latest[1]

    def _order_pass(self, number: int) -> tuple[Ints, Ints]:
        """Shards in the order of pass `number`, and the positions at which each ends, shape (shards + 1,)."""
        order = np.argsort(_keys(f"{self.seed}\0{self.name}\0{number}", len(self.shard_samples)), kind="stable")
        ends = np.zeros(len(order) + 1, np.int64)
        np.cumsum(self.shard_samples[order], out=ends[1:])
        return order, ends

    def window(self, begin: int, end: int) -> Pieces:
        """The shard ranges that hold positions [begin, end) of the cycle, 0 <= begin <= end."""
        shards: list[Ints] = []
        begins: list[Ints] = []
        sizes: list[Ints] = []
        for number in range(begin // self.samples, -(-end // self.samples)):
            order, ends = self._pass(number)
            low = max(begin - number * self.samples, 0)
            high = min(end - number * self.samples, self.samples)
            first = int(np.searchsorted(ends, low, side="right")) - 1
            last = int(np.searchsorted(ends, high, side="left"))
            starts = np.maximum(ends[first:last], low)
            shards.append(order[first:last])
            begins.append(starts - ends[first:last])
            sizes.append(np.minimum(ends[first + 1 : last + 1], high) - starts)
        if not shards:
            empty = np.zeros(0, np.int64)
            return Pieces(empty, empty, empty)
        size = np.concatenate(sizes)
        some = size > 0  # a stream may list an empty shard
        return Pieces(np.concatenate(shards)[some], np.concatenate(begins)[some], size[some])


def _keys(text: str, count: int) -> NDArray[np.uint64]:
    # SplitMix64 from a hashed seed: sorting by key is a permutation that no numpy release can change, whereas
    # numpy.random.Generator promises no stable stream across versions.
    state = np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
    z = state + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def drawn_front(plan: EpochPlan, source: int, cycle: Cycle) -> Ints:
    """How many samples at the front of each shard of a source the whole phase draws, shape (shards,).

    The first pass visits the shards in a known order; a phase that reads a source more than once draws all of it.
    """
    draws = int(plan.draws[-1, source])
    pieces = cycle.window(0, min(draws, cycle.samples))
    front = np.zeros(len(cycle.shard_samples), np.int64)
    front[pieces.shards] = pieces.sizes
    return front


def arrange_epoch(plan: EpochPlan, cycles: Sequence[Cycle], epoch: int) -> tuple[Ints, Ints]:
    """The samples of one virtual epoch, before any shuffling inside it.

    Samples are numbered through all sources in order, each source's shards in order: the numbering of a
    StreamingDataset over the same streams. Returns (piece_sizes, sample_ids): the sizes of the contiguous shard ranges
    and, concatenated, their samples, so piece_sizes.sum() == len(sample_ids) == plan.samples(epoch).
    """
    starts: list[Ints] = []
    sizes: list[Ints] = []
    offset = 0
    for source, cycle in enumerate(cycles):
        begin, end = plan.draws[epoch : epoch + 2, source].tolist()
        pieces = cycle.window(begin, end)
        shard_starts = np.cumsum(cycle.shard_samples) - cycle.shard_samples
        starts.append(offset + shard_starts[pieces.shards] + pieces.begins)
        sizes.append(pieces.sizes)
        offset += cycle.samples
    start, size = np.concatenate(starts), np.concatenate(sizes)
    before = np.cumsum(size) - size
    sample_ids = np.repeat(start - before, size) + np.arange(int(size.sum()), dtype=np.int64)
    return size, sample_ids
