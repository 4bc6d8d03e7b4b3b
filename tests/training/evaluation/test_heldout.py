"""Held-out samples that really are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.base.errors import UserError
from corpus.base.files import write_json
from tests.training.evaluation.evaluation_kit import evaluate
from tests.training.trainer_kit import build
from training.data.mixture import Cycle, arrange_epoch, plan_epochs
from training.data.samples import StreamSamples
from training.evaluate import main
from training.evaluation.heldout import choose, loaded_weights
from training.evaluation.subject import Subject


@settings(max_examples=60, deadline=None)
@given(
    shards=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    share=st.floats(0.05, 1.4),
    seed=st.integers(0, 99),
    count=st.integers(1, 300),
)
def test_held_out_samples_are_those_that_the_phase_never_draws(
    shards: list[int], share: float, seed: int, count: int
) -> None:
    """Against the loader's own arrangement, with a second source in front."""
    total = sum(shards)
    steps = max(1, round(total * share) // 2)
    plan = plan_epochs([1.0, 1.0], steps, 4, 16)
    cycles = [Cycle("first", [5, 7], seed), Cycle("a", shards, seed)]
    everything = np.concatenate([arrange_epoch(plan, cycles, epoch)[1] for epoch in range(plan.epochs)])
    drawn = {int(sample) - 12 for sample in everything if sample >= 12}
    front = np.zeros(len(shards), np.int64)
    pieces = Cycle("a", shards, seed).window(0, min(int(plan.draws[-1, 1]), total))
    front[pieces.shards] = pieces.sizes
    choice = choose(shards, front, count)
    starts = np.cumsum(shards) - shards
    chosen = [int(starts[shard] + sample) for shard, samples in choice.rows for sample in samples]
    assert choice.unseen == total - len(drawn) and choice.seen == (choice.unseen == 0)
    assert len(set(chosen)) == len(chosen) == choice.count == min(count, choice.unseen or total)
    assert all(0 <= sample < total for sample in chosen)
    if not choice.seen:
        assert not drawn & set(chosen)


def test_held_out_loss_per_source(folder: Path, subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(capsys, folder)["held_out"]
    a, b = result["sources"]["a"], result["sources"]["b"]
    assert (a["seen_in_training"], a["samples"], a["samples_never_drawn"]) == (False, 15, 15)
    assert (b["seen_in_training"], b["samples"], b["samples_never_drawn"]) == (True, 40, 0)
    assert result["loss"] == pytest.approx(0.7 * a["loss"] + 0.3 * b["loss"])
    stream = StreamSamples(folder / "data" / "streams" / "b-40")
    rows = np.concatenate([stream.read(shard) for shard in range(len(stream.shard_samples))]).astype(np.int64)
    ids = torch.from_numpy(rows)
    assert b["loss"] == pytest.approx(subject.model.loss(ids[:, :-1], ids[:, 1:]).item(), rel=1e-5)
    assert evaluate(capsys, folder, "--held-out", 3)["held_out"]["sources"]["a"]["samples"] == 3
    main([str(folder / "runs" / "run"), "--data", str(folder / "data")])
    text = capsys.readouterr().out
    assert "yes: the run draws all of it" in text and "results in" in text


def test_a_phase_that_read_the_stream_before_counts_too(folder: Path, subject: Subject) -> None:
    """The same stream under another seed: only what neither phase draws is held out."""
    from training.evaluation import heldout

    stream = StreamSamples(folder / "data" / "streams" / "a-150")
    other = subject.recipe.model_copy(update={"seed": 99})
    fronts = [heldout.drawn(each, subject.manifest, "a", stream.shard_samples) for each in (other, subject.recipe)]
    both = Subject(**{**vars(subject), "phases": [other, subject.recipe], "manifests": subject.manifests * 2})
    assert heldout._front(both, "a", stream).tolist() == np.maximum(*fronts).tolist() != fronts[1].tolist()


def test_data_of_another_build_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        main([str(folder / "runs" / "run"), "--data", str(tmp_path)])
    build(tmp_path, samples=(150, 40))
    build(tmp_path / "other", samples=(151, 40))
    (tmp_path / "other/data/streams/a-151").rename(tmp_path / "data/streams/x")
    (tmp_path / "data/streams/a-150").rename(tmp_path / "data/streams/y")
    (tmp_path / "data/streams/x").rename(tmp_path / "data/streams/a-150")
    with pytest.raises(UserError, match="holds 151 samples, the run's 'a' had 150"):
        main([str(folder / "runs" / "run"), "--data", str(tmp_path / "data")])


@pytest.mark.parametrize(
    ("command", "loaded"),
    [(["--loa", "x"], {"path": "x"}), (["--load=x"], {"path": "x"}), (["--run-name", "--load"], None)],
)
def test_other_weights_are_known_by_the_record_and_not_by_the_spelling(
    tmp_path: Path, command: list[str], loaded: dict[str, str] | None
) -> None:
    starts = [{"command": ["train.py", *command], "loaded": loaded}, {"command": ["train.py"], "loaded": None}]
    write_json(tmp_path / "run.json", {"starts": starts})
    assert loaded_weights(tmp_path) is (loaded is not None)
