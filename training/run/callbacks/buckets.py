"""Makes DDP reduce gradients in the same order after a resume as before it."""

from __future__ import annotations

from typing import Literal

import torch
from composer.core import Callback, State, get_precision_context
from composer.loggers import Logger
from torch.nn.parallel import DistributedDataParallel

from training.run.composer_model import INPUTS, SOURCES, TARGETS, TrainingModel


class SettleBuckets(Callback):
    """Runs one backward pass on made-up data before the first step and throws its gradients away.

    DDP regroups its gradient buckets after the first backward pass of a process. With three or more processes the
    grouping decides in which order numbers are added, so without this the first step after a resume would differ from
    the same step of an uninterrupted run in its last bits.
    """

    def __init__(self, sequences: int | Literal["auto"], seq_len: int) -> None:
        """The shape of a microbatch, so that a compiled model sees no other."""
        self.sequences, self.seq_len = 1 if sequences == "auto" else sequences, seq_len

    def fit_start(self, state: State, logger: Logger) -> None:
        """After DDP has wrapped the model, before the loop."""
        model = state.model
        if not isinstance(model, DistributedDataParallel):
            return
        zeros = torch.zeros(self.sequences, self.seq_len, dtype=torch.int64)
        batch = {INPUTS: zeros, TARGETS: zeros, SOURCES: zeros[:, 0]}
        with get_precision_context(state.precision):
            loss = model(state.device.batch_to_device(batch))
        loss.backward()
        state.optimizers[0].zero_grad(set_to_none=True)
        inner = model.module
        assert isinstance(inner, TrainingModel)
        inner.take_sums()
