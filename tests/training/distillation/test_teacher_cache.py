"""The teacher read from disk: the same loss as from the one that wrote it."""

from __future__ import annotations

import pytest
import torch

from tests.training.distillation.teacher_kit import CPU, Bench, stored_rows
from tests.training.trainer_kit import SEQ_LEN, VOCAB
from training.distillation.cache import CachedTeacher
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
    cached = CachedTeacher(bench.found(VOCAB))
    results = []
    for teacher in (online, cached):
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
    picks = [59, 0, 41, 39, 17]
    ids = stored_rows(bench)[picks][:, :-1]
    top = CachedTeacher(bench.found(6))({"input_ids": ids, "sample_ids": torch.tensor(picks)})
    log_probs = torch.log_softmax(teacher.logits_of(ids)(slice(0, 5 * SEQ_LEN)), -1)
    torch.testing.assert_close(top.log_probs[:, :-1], log_probs.topk(6).values, atol=5e-3, rtol=2e-3)
    torch.testing.assert_close(top.log_probs[:, :-1], log_probs.gather(1, top.ids), atol=5e-3, rtol=2e-3)
    torch.testing.assert_close(top.log_probs.exp().sum(1), torch.ones(5 * SEQ_LEN))
