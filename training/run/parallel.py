"""How a model is kept alike on all processes: copies whose gradients are averaged (DDP), or shards of it (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal
from unittest.mock import patch

import torch
from composer import Callback, Trainer
from composer.core import Event, State
from composer.loggers import Logger
from composer.utils import dist
from composer.utils.parallelism import FSDP2Config
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from training.model.memory import needs_recompute
from training.run.composer_model import INPUTS, training_model
from training.run.options import Options
from training.run.phases import Phase


def parallelism_config(parallel: Literal["ddp", "fsdp2"]) -> dict[str, Any] | None:
    """The Trainer's argument of this name. Which modules are sharded is `MobileLM.fsdp_wrap_fn`."""
    if parallel == "ddp":
        return None
    # An object under "fsdp": a mapping there means the older FSDP, and the Trainer passes over any other key.
    return {
        "fsdp": FSDP2Config(
            state_dict_type="full",
            # Parameters stay float32 where they are used, and autocast makes the bf16 copies, as it does under DDP.
            # Composer's default gathers them in bf16: norms, the embedding's sums and the residual stream would be
            # bf16 too, and a run that goes on with the other kind of parallelism would change its arithmetic.
            mixed_precision="FULL",
        )
    }


def recomputes(options: Options, phase: Phase, device: torch.device) -> bool:
    """Whether the phase's blocks are computed again in backward instead of kept."""
    if options.checkpoint_activations != "auto" or device.type != "cuda":
        return options.checkpoint_activations == "on"
    memory = torch.cuda.get_device_properties(device).total_memory
    shards = dist.get_world_size() if options.parallel == "fsdp2" else 1
    bf16 = options.precision != "fp32"
    return needs_recompute(phase.model, phase.recipe.seq_len, memory, shards=shards, bf16=bf16)


def replicate(module: nn.Module, find_unused_parameters: bool = False) -> DistributedDataParallel:
    """DDP around `module`, without its costs that this model does not need."""
    return DistributedDataParallel(
        module,
        find_unused_parameters=find_unused_parameters,
        # The only buffers are the rotary tables, which every process computes alike.
        broadcast_buffers=False,
        # Gradients live in the buckets that are reduced, instead of beside them: 4 bytes less per parameter.
        gradient_as_bucket_view=True,
    )


def reduced_ones(device: str) -> float:
    """What FSDP2 reduces gradients of one on every process to: 1, their mean, or the number of processes.

    gloo's reduce-scatter adds up where the mean is asked for, without a word (torch 2.7): gradients on CPUs were
    as many times too large as there were processes, which clipping and Adam hide.
    """
    probe = nn.utils.skip_init(nn.Linear, 1, 1, bias=False, device=device)
    fully_shard(probe, mesh=init_device_mesh(device, (dist.get_world_size(),)))
    probe(torch.ones(1, 1, device=device)).sum().backward()
    assert isinstance(probe.weight.grad, DTensor)
    return float(probe.weight.grad.full_tensor())


LOOP = frozenset(
    {
        Event.BEFORE_DATALOADER, Event.AFTER_DATALOADER, Event.BATCH_START, Event.BEFORE_TRAIN_BATCH,
        Event.BEFORE_FORWARD, Event.AFTER_FORWARD, Event.BEFORE_LOSS, Event.AFTER_LOSS, Event.BEFORE_BACKWARD,
        Event.AFTER_BACKWARD, Event.AFTER_TRAIN_BATCH, Event.BATCH_END, Event.BATCH_CHECKPOINT,
    }
)  # fmt: skip
"""Events of every step or microbatch."""


class ParallelTrainer(Trainer):
    """Composer's Trainer, with `replicate` in place of its DDP wrapper, and with fewer exchanges in each step.

    All processes have equal shares of a batch (training/data/elastic.py), so what Composer adds up over them after
    each step is known to each, and StepGuard has gathered the loss. Each exchange waits for the device.
    """

    def __init__(self, **arguments: Any) -> None:
        # The Trainer passes no arguments on to DDP, and wraps the model in the middle of its constructor, after a
        # checkpoint was loaded and before torch.compile: this name is the only place to reach in between.
        with patch("composer.trainer.trainer.prepare_ddp_module", replicate):
            super().__init__(**arguments)
        if not self.logger.destinations:
            self.engine.run_event = partial(self._run_event, self.engine.run_event)  # type: ignore[method-assign]

    def _run_event(self, usual: Callable[[Event | str], Any], event: Event | str) -> Any:
        """Call the callbacks that have a method for an event of the loop, in order.

        Composer calls and logs each callback at each event, which is most of what it costs in a step.
        """
        event = Event(event)
        if event not in LOOP:
            return usual(event)
        for callback in self.state.callbacks:
            if getattr(type(callback), event.value) is not getattr(Callback, event.value):
                getattr(callback, event.value)(self.state, self.logger)
        return {}

    def _train_batch(self, use_grad_scaling: bool) -> Any:
        """None in place of losses, as after a failed scaling of gradients: there is then nothing to reduce or log."""
        super()._train_batch(use_grad_scaling)
        return None

    def _accumulate_time_across_ranks(
        self, num_samples: float, num_tokens: int, batch_time: timedelta
    ) -> tuple[int, int, timedelta]:
        """Samples and tokens of all processes, and this one's time."""
        return round(num_samples) * dist.get_world_size(), num_tokens * dist.get_world_size(), batch_time


class ShardedGradients(Callback):
    """Gradients under FSDP2: reduced once a step, and the mean over processes. To come before whatever reads them.

    Composer lets DDP reduce in the last microbatch of a step only, but FSDP2 in each. With this, each process keeps its
    own whole gradient in float32 until the last, as under DDP; with one microbatch a step it never does.
    """

    def __init__(self) -> None:
        self._left, self._divisor = 0, 1.0

    def fit_start(self, state: State, logger: Logger) -> None:
        """See what FSDP2 makes of equal gradients here."""
        self._divisor = reduced_ones(next(state.model.parameters()).device.type)

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Count the microbatches of the step."""
        size = state.device_train_microbatch_size
        assert isinstance(size, int)
        self._left = -(-len(state.batch[INPUTS]) // size)

    def before_backward(self, state: State, logger: Logger) -> None:
        """Switch reduction on for the last of them."""
        self._left -= 1
        model: nn.Module = training_model(state).model
        assert isinstance(model, FSDPModule)
        model.set_requires_gradient_sync(self._left == 0)

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Turn sums into means, where there are sums."""
        if self._divisor != 1:
            for parameter in state.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(self._divisor)
