"""What makes training fast (chunked loss, fused AdamW, torch.compile, bf16) against the same steps done plainly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from corpus.recipe.training import Optimizer
from training.model.decoder import MobileLM
from training.model.shapes import SIZES, ModelConfig, scaled_down
from training.run.composer_model import TrainingModel
from training.run.optimizer import build_optimizer, decay_groups
from training.run.trainer import COMPILE

STEPS, BATCH, SEQ_LEN, VOCAB = 200, 4, 32, 256
SETTINGS = Optimizer(lr=1e-3)
TOLERANCE = 1e-3
"""Relative difference of any of 200 losses in float32; differences in the last bit grow from step to step."""
BF16_TOLERANCE = 0.02
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")


def config(size: str, layers: int = 1) -> ModelConfig:
    return replace(
        scaled_down(SIZES[size]), layers=layers, global_layers=(0,) if size == "pro" else None, vocab_size=VOCAB
    )


def batches(count: int) -> Iterator[dict[str, Tensor]]:
    """Arithmetic sequences of a random start and stride: there is something to learn."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        start = torch.randint(VOCAB, (BATCH, 1), generator=generator)
        stride = torch.randint(1, 4, (BATCH, 1), generator=generator)
        ids = (start + stride * torch.arange(SEQ_LEN + 1)) % VOCAB
        which = torch.arange(BATCH)
        yield {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "sample_ids": which, "source_ids": which % 2}


@dataclass
class Plain:
    """All logits at once through autograd, AdamW one tensor at a time."""

    model: MobileLM

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        logits = self.model.logits(self.model(batch["input_ids"]))
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    def optimizer(self) -> torch.optim.Optimizer:
        groups = decay_groups(self.model, SETTINGS.weight_decay)
        return torch.optim.AdamW(
            groups, lr=SETTINGS.lr, betas=SETTINGS.betas, eps=SETTINGS.eps, foreach=False, fused=False
        )


@dataclass
class Fast:
    """The trainer's own parts, as they are put together on a GPU."""

    model: TrainingModel
    bf16: bool = False

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(batch)
        self.model.take_sums()
        return loss

    def optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.model, SETTINGS, "cuda")  # fused: the kernel exists for CPUs too


def plain(cfg: ModelConfig) -> Plain:
    torch.manual_seed(1)
    return Plain(MobileLM(cfg))


def fast(cfg: ModelConfig, backend: str | None = None, bf16: bool = False) -> Fast:
    torch.manual_seed(1)
    model = TrainingModel(cfg, ("a", "b"))
    if backend:
        model.compile(backend=backend, **COMPILE)
    return Fast(model, bf16)


def losses(way: Plain | Fast) -> Tensor:
    optimizer = way.optimizer()
    found = []
    for batch in batches(STEPS):
        loss = way.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(way.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.detach())
    return torch.stack(found)


@pytest.fixture(scope="module")
def plain_losses() -> Tensor:
    found = losses(plain(config("950m")))
    assert found[-10:].mean() < 0.7 * found[0], "nothing was learnt, so nothing is compared"
    return found


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("backend", [None, pytest.param("inductor", marks=NEEDS_COMPILER)])
def test_200_steps_lose_as_the_plain_ones(plain_losses: Tensor, backend: str | None) -> None:
    found = losses(fast(config("950m"), backend))
    torch.testing.assert_close(found, plain_losses, rtol=TOLERANCE, atol=0)


def test_200_steps_in_bf16_stay_near_float32(plain_losses: Tensor) -> None:
    found = losses(fast(config("950m"), bf16=True))
    torch.testing.assert_close(found, plain_losses, rtol=BF16_TOLERANCE, atol=0)


@pytest.mark.parametrize("backend", [None, "aot_eager"])  # all of torch.compile but its slow C++ compiler
@pytest.mark.parametrize("size", ["950m", "125m-ls", "pro"])
def test_gradients_are_the_plain_ones(size: str, backend: str | None) -> None:
    (batch,) = batches(1)
    grads = []
    for way in (plain(config(size, 2)), fast(config(size, 2), backend)):
        way.loss(batch).backward()
        grads.append([parameter.grad for parameter in way.model.parameters()])
    assert len(grads[0]) == len(grads[1])
    for one, other in zip(*grads, strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_compiled_code_knows_its_shapes_although_the_first_pass_had_another() -> None:
    """A search for the microbatch, or DDP's first pass, must not leave a run with kernels for any size."""
    symbols: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[object]) -> object:
        symbols.append(any(isinstance(each, torch.SymInt) for each in inputs))
        return graph.forward

    (batch,) = batches(1)
    model = TrainingModel(config("950m"), ("a", "b"))
    model.compile(backend=backend, **COMPILE)
    for rows in (1, 2, 4):
        model({key: value[:rows] for key, value in batch.items()}).backward()
        model.take_sums()
    assert len(symbols) >= 3 and not any(symbols)
