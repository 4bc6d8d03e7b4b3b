"""Makes DDP reduce gradients in the same order after a resume as before it."""

from __future__ import annotations

from composer.core import Callback, State, get_precision_context
from composer.loggers import Logger
from torch.nn.parallel import DistributedDataParallel

from training.run.composer_model import training_model
from training.run.passes import made_up_batch, made_up_teacher


class SettleBuckets(Callback):
    """Runs one backward pass on made-up data before the first step and throws its gradients away.

    DDP regroups its gradient buckets after the first backward pass of a process. With three or more processes the
    grouping decides in which order numbers are added, so without this the first step after a resume would differ from
    the same step of an uninterrupted run in its last bits.
    """

    def __init__(self, sequences: int, seq_len: int, document_mask: bool) -> None:
        """The shape of a microbatch, so that a compiled model sees no other."""
        self.shape = (sequences, seq_len, document_mask)

    def fit_start(self, state: State, logger: Logger) -> None:
        """After DDP has wrapped the model, before the loop."""
        model = state.model
        if not isinstance(model, DistributedDataParallel):
            return
        inner = training_model(state)
        with made_up_teacher(inner):
            with get_precision_context(state.precision):
                loss = model(state.device.batch_to_device(made_up_batch(*self.shape)))
            loss.backward()
        state.optimizers[0].zero_grad(set_to_none=True)
        inner.take_sums()
