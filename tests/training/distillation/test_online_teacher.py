"""The teacher that runs beside the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
)

from tests.training.distillation.teacher_kit import CPU, SHAPE, Bench, make_teacher
from tests.training.trainer_kit import VOCAB
from training.distillation.teacher import OnlineTeacher
from training.hf.config import hf_config
from training.model.shapes import SIZES, scaled_down


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("teacher"))


def test_logits_are_the_models_own_whatever_chunk(tmp_path: Path) -> None:
    torch.manual_seed(1)
    # The second class divides its logits by a number, which a bare product with the head would miss.
    scaled = GraniteForCausalLM(GraniteConfig(vocab_size=VOCAB, **SHAPE, logits_scaling=4.0))
    scaled.save_pretrained(tmp_path / "scaled")
    # The third names no base model.
    shape = hf_config(scaled_down(SIZES["950m"]))
    Llama4ForCausalLM(Llama4TextConfig(**shape)).save_pretrained(tmp_path / "llama4")
    for folder, by_chunk in (
        (make_teacher(tmp_path / "plain"), True),
        (tmp_path / "scaled", False),
        (tmp_path / "llama4", True),
    ):
        teacher = OnlineTeacher(str(folder), vocab_size=VOCAB, device=CPU)
        assert (teacher.logits_of(torch.zeros(1, 4, dtype=torch.int64)).head is not None) == by_chunk
        ids = torch.randint(VOCAB, (3, 16))
        logits_of = teacher.logits_of(ids)
        with torch.no_grad():
            expected = teacher.model(ids).logits.flatten(0, 1)
        for part in (slice(0, 48), slice(5, 20)):
            torch.testing.assert_close(logits_of(part), expected[part])
        assert not logits_of(slice(0, 1)).requires_grad


def test_with_a_document_mask_each_document_is_read_alone(bench: Bench) -> None:
    teacher = OnlineTeacher(str(bench.teacher), vocab_size=VOCAB, device=CPU)
    ids = torch.randint(VOCAB, (1, 16))
    doc_ids = torch.tensor([[0] * 7 + [1] * 9])
    both = teacher({"input_ids": ids, "doc_ids": doc_ids})(slice(0, 16))
    for part in (slice(0, 7), slice(7, 16)):
        # Rotary positions are relative, so it does not matter that the second document starts at 7.
        alone = teacher({"input_ids": ids[:, part]})(slice(0, 16))
        torch.testing.assert_close(both[part], alone, atol=1e-4, rtol=1e-4)
