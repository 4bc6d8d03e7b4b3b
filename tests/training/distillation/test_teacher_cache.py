"""The teacher read from disk: the same loss as from the one that wrote it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus.base.errors import UserError
from tests.training.distillation.teacher_kit import CPU, Bench, stored_rows
from tests.training.trainer_kit import SEQ_LEN, VOCAB
from training.distillation.cache import CacheReader, Run, WithTeacher, cached_teacher, reach
from training.distillation.loss import Distiller, Objective
from training.distillation.teacher import OnlineTeacher
from training.model.decoder import MobileLM
from training.model.shapes import SIZES, scaled_down
from training.run.composer_model import TrainingModel


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("teacher"))


def test_cached_and_online_give_the_same_loss_and_gradients(bench: Bench) -> None:
    bench.write(VOCAB)
    ids = stored_rows(bench)[[3, 58, 41]]
    batch = {
        "input_ids": ids[:, :-1], "labels": ids[:, 1:], "sample_ids": torch.tensor([3, 58, 41]),
        "source_ids": torch.tensor([0, 1, 1]),
    }  # fmt: skip
    online = OnlineTeacher(str(bench.teacher), vocab_size=VOCAB, device=CPU)
    samples = [{"sample_id": 3}, {"sample_id": 58}, {"sample_id": 41}]
    batch = WithTeacher(lambda _: batch, CacheReader(bench.found(VOCAB)))(samples)
    results = []
    for teacher in (online, cached_teacher):
        torch.manual_seed(0)
        cfg = scaled_down(SIZES["350m"])
        model = TrainingModel(cfg, ("a", "b"), Distiller(teacher, Objective(ce_weight=0.2, top_k=VOCAB)))
        assert len(list(model.parameters())) == len(list(MobileLM(cfg).parameters()))
        loss = model(batch)
        loss.backward()
        sums = model.take_sums()
        assert sums
        torch.testing.assert_close(0.2 * sums.loss.sum() / 3 + 0.8 * sums.kd.sum() / 3, loss.detach().double())
        results.append((loss.detach(), model.model.embed_tokens.weight.grad))
    torch.testing.assert_close(results[0][0], results[1][0], atol=0, rtol=1e-3)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-3, rtol=1e-2)


def test_rows_belong_to_their_samples(bench: Bench) -> None:
    bench.write(6)
    teacher = OnlineTeacher(str(bench.teacher), vocab_size=VOCAB, device=CPU)
    picks = [58, 0, 41, 39, 17]
    ids = stored_rows(bench)[picks][:, :-1]
    read = WithTeacher(lambda _: {}, pickle.loads(pickle.dumps(CacheReader(bench.found(6)))))  # noqa: S301 - our own
    top = cached_teacher(read([{"sample_id": sample} for sample in picks]))
    log_probs = torch.log_softmax(teacher.logits_of(ids)(slice(0, 5 * SEQ_LEN)), -1)
    torch.testing.assert_close(top.log_probs[:, :-1], log_probs.topk(6).values, atol=5e-3, rtol=2e-3)
    torch.testing.assert_close(top.log_probs[:, :-1], log_probs.gather(1, top.ids), atol=5e-3, rtol=2e-3)
    torch.testing.assert_close(top.log_probs.exp().sum(1), torch.ones(5 * SEQ_LEN))


def test_only_what_the_phase_draws_is_written_and_a_longer_phase_adds_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path)
    half = ["--set", f"tokens={4 * 8 * SEQ_LEN}"]
    bench.write(3, "--dry-run", *half)
    assert not bench.caches("a-40")
    bench.write(3, *half)
    text = capsys.readouterr().out
    assert "a-40: the phase draws 22 of 40 samples" in text or "a-40: the phase draws 23 of 40 samples" in text
    folder = bench.caches("a-40")[0]
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert sum(len(np.load(path)) for path in folder.glob("*.ids.npy")) in (22, 23)
    with pytest.raises(UserError, match=r"samples that the phase draws missing.*Run: python -m training\.teacher"):
        bench.found(3)
    bench.write(3)
    assert all((folder / name).stat().st_mtime_ns == time for name, time in first.items())
    added = Bench(tmp_path / "whole")
    added.write(3)
    picks = [0, 5, 17, 39, 41, 55]
    for ours, fresh in zip(*(CacheReader(each.found(3)).rows(picks) for each in (bench, added)), strict=True):
        assert (ours == fresh).all()
    with pytest.raises(UserError, match="is missing"):
        CacheReader(bench.found(3)).rows([59])  # of the 20 of b, 19 are drawn


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), max_size=6))
def test_how_far_the_written_runs_reach(spans: list[tuple[int, int]]) -> None:
    runs = sorted(Run(0, begin, begin + size) for begin, size in spans)
    written = {row for run in runs for row in range(run.begin, run.end)}
    assert reach(runs) == next(row for row in range(30) if row not in written)
