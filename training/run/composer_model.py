"""The model as Composer drives it: one forward that ends in the loss, and loss sums per source beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from composer.core import State
from composer.models import ComposerModel
from torch import Tensor, nn

from training.distillation.loss import Distiller, LogitsOf, TopK, distillation_loss
from training.model.decoder import MobileLM
from training.model.losses import cross_entropy
from training.model.shapes import ModelConfig

INPUTS, TARGETS, DOCUMENTS, SAMPLES, SOURCES = "input_ids", "labels", "doc_ids", "sample_ids", "source_ids"
"""Keys of a batch (training/data/loader.py): three of (B, S), DOCUMENTS only with a document mask, and two of (B,)."""


@dataclass
class StepSums:
    """Loss sums of one optimiser step on this rank."""

    loss: Tensor
    """(sources,) float64: sum over samples of their mean cross-entropy per token."""
    kd: Tensor
    """(sources,) float64: the same of the distillation term; zeros without a teacher."""
    samples: Tensor
    """(sources,) float64: number of samples."""
    total: Tensor
    """() float64: sum over samples of the loss that is trained on."""


class TrainingModel(ComposerModel):
    """MobileLM for Composer's Trainer.

    The loss is computed inside forward, because sharded training has the tied head whole only there. Nothing else is
    read from the batch, so that a run's arithmetic depends on the ids alone.
    """

    def __init__(self, cfg: ModelConfig, sources: Sequence[str], distiller: Distiller | None = None) -> None:
        super().__init__()
        self.model = MobileLM(cfg)
        self.sources = tuple(sources)
        self.distiller = distiller
        self.sums: StepSums | None = None
        """Of the forward passes since `take_sums` was last called; None when there were none."""

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of a microbatch, scalar: next-token, or distillation; see the keys above for shapes."""
        inputs, targets = (batch[INPUTS], batch.get(DOCUMENTS)), batch[TARGETS]
        if self.distiller is None:
            mean, tokens = self.model(*inputs, objective=partial(cross_entropy, targets=targets))
            self._add(mean, tokens, None, batch[SOURCES])
            return mean
        teacher = self._ask(batch)
        objective = partial(distillation_loss, targets=targets, teacher=teacher, objective=self.distiller.objective)
        mean, tokens, kd = self.model(*inputs, objective=objective)
        self._add(mean, tokens, kd, batch[SOURCES])
        return mean

    @torch.compiler.disable
    def _ask(self, batch: Mapping[str, Tensor]) -> LogitsOf | TopK:
        assert self.distiller
        return self.distiller.teacher(batch)

    def loss(self, outputs: Tensor, batch: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The loss that forward already computed."""
        return outputs

    @torch.no_grad()
    def _add(self, mean: Tensor, losses: Tensor, kd: Tensor | None, sources: Tensor) -> None:
        """`mean` (), `losses` and `kd` (B, S)."""
        if self.sums is None:
            zeros = torch.zeros(len(self.sources), dtype=torch.float64, device=losses.device)
            self.sums = StepSums(zeros, zeros.clone(), zeros.clone(), zeros.new_zeros(()))
        # One-hot product instead of index_add_: the latter adds in no fixed order on CUDA.
        hot = nn.functional.one_hot(sources, len(self.sources)).double()
        self.sums.loss += losses.mean(dim=1).double() @ hot
        if kd is not None:
            self.sums.kd += kd.mean(dim=1).double() @ hot
        self.sums.samples += hot.sum(dim=0)
        self.sums.total += mean.double() * len(sources)

    def take_sums(self) -> StepSums | None:
        """The sums since the last call, which starts them anew; None when forward did not run."""
        sums, self.sums = self.sums, None
        return sums


def training_model(state: State) -> TrainingModel:
    """The model that Composer trains, out of its DDP wrapper."""
    model = state.model.module if state.is_model_ddp else state.model
    assert isinstance(model, TrainingModel)
    return model
