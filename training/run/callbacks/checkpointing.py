"""Saves, restores and stops: everything of a run that outlives its processes passes through here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist, reproducibility

from training.run import checkpoint
from training.run.callbacks.guard import BadLossRule
from training.run.checkpoint import Record
from training.run.folder import RunFolder
from training.run.optimizer import apply_settings
from training.run.phases import Phase
from training.run.ranks import StopSignal, on_first

PREFIX = "model."
"""MobileLM's place inside the Composer model; checkpoints keep MobileLM's own names."""

CLOCKS = ("total_wct", "iteration_wct", "epoch_wct", "batch_wct")
"""Entries of Composer's timestamp that are durations; stored as seconds."""


@dataclass(frozen=True)
class Start:
    """Where a phase's training begins."""

    path: Path | None = None
    """Checkpoint or weights file to read; None starts from random weights."""
    record: Record | None = None
    """Set when `path` is a checkpoint of this very phase, to continue exactly; else it only gives starting values."""
    optimizer: bool = False
    """Take over the optimiser state of an earlier phase."""

    @property
    def step(self) -> int:
        """Steps of the phase that are done."""
        return self.record.step if self.record else 0


@dataclass(frozen=True)
class SaveRules:
    """When to save and how much to keep."""

    interval: int
    keep: int
    last_step: int
    """The step this command ends at: the phase's last, or an earlier one to pause at."""


class Checkpointer(Callback):
    """Composer's own saver and loader are not used: they write in place and load by unpickling.

    The seams are State.get_model_state_dict, get_optim_state_dict and load_state_dict, which gather and scatter
    parameters for DDP and FSDP2 alike, and the AFTER_LOAD event, where Composer itself has just loaded.
    """

    def __init__(
        self,
        phase: Phase,
        run: RunFolder,
        start: Start,
        rules: SaveRules,
        stop: StopSignal,
        bad_loss: BadLossRule,
        next_batch: Callable[[int], str | None],
    ) -> None:
        """`next_batch(step)` predicts the digest of the batch that follows the first `step` steps."""
        self.phase, self.run, self.start, self.rules, self.stop = phase, run, start, rules, stop
        self.bad_loss = bad_loss
        self.next_batch = next_batch
        self.paused_by_signal = False
        self._random_states: list[dict[str, Any]] | None = None

    def after_load(self, state: State, logger: Logger) -> None:
        """Load, at the point where Composer would: after sharding, before the DDP wrapper."""
        start = self.start
        if start.path is None:
            return
        weights = checkpoint.read_weights(start.path)
        content: dict[str, Any] = {"model": {PREFIX + name: tensor for name, tensor in weights.items()}}
        stored: dict[str, Any] = {}
        if start.record or start.optimizer:
            # Copied to the GPU from the mapped file; on the CPU the optimiser keeps the very tensors that are read.
            stored = checkpoint.read_state(start.path, mmap=state.device.name == "gpu")
            content["optimizers"] = stored["optimizers"]
        if start.record:
            clock = stored["timestamp"]
            content["timestamp"] = {"Timestamp": {**clock, **{key: timedelta(seconds=clock[key]) for key in CLOCKS}}}
            content["dataset_state"] = {"train": start.record.data, "eval": {}}
            self._random_states = [_from_plain(each) for each in stored["random"]]
            self.bad_loss.load_state_dict(stored["bad_loss"])
        state.load_state_dict(content, logger, strict=True)
        apply_settings(state.optimizers[0], self.phase.recipe.training.optimizer)

    def batch_start(self, state: State, logger: Logger) -> None:
        """Restore the random states where the saved run had them: the loader has started, no forward has run."""
        if self._random_states is not None:
            reproducibility.load_rng_state(self._random_states)
            self._random_states = None

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save when it is time, and stop when any process was asked to."""
        step = state.timestamp.batch.value
        flag = state.device.tensor_to_device(torch.tensor([int(self.stop.received)], dtype=torch.int32))
        dist.all_reduce(flag, reduce_operation="MAX")
        stopping = bool(flag.item())
        if stopping or step % self.rules.interval == 0 or step == self.rules.last_step:
            self._save(state)
        if stopping and step < self.rules.last_step:
            self.paused_by_signal = True
            state.stop_training()

    def _save(self, state: State) -> None:
        step = state.timestamp.batch.value
        # Collective: every rank takes part, rank 0 receives the whole.
        weights, optimizers = state.get_model_state_dict(), state.get_optim_state_dict()
        random_states = [_to_plain(each) for each in reproducibility.get_rng_state()]
        facts = {
            "phase": self.phase.index,
            "recipe": self.phase.name,
            "step": step,
            "tokens": state.timestamp.token.value,
            "finished": step == self.phase.steps,
            "model": asdict(self.phase.model),
            "document_mask": self.phase.recipe.document_mask,
            "model_changes": self.start.record.model_changes if self.start.record else [],
            "data": self._dataset_state(state),
            "world_size": dist.get_world_size(),
            "microbatch": int(state.device_train_microbatch_size or 0),
        }

        def write() -> str:
            clock = state.timestamp.state_dict()
            clock.update({key: clock[key].total_seconds() for key in CLOCKS})
            content = {
                "optimizers": optimizers,
                "timestamp": clock,
                "random": random_states,
                "bad_loss": self.bad_loss.state_dict(),
            }
            predicted = self.next_batch(step)
            own = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
            path = checkpoint.write(self.run.checkpoints, {**facts, "next_batch": predicted}, own, content)
            checkpoint.prune(self.run.checkpoints, self.rules.keep)
            return path.name

        on_first(write)

    def _dataset_state(self, state: State) -> dict[str, Any]:
        dataset = state.train_dataloader.dataset  # type: ignore[union-attr]
        return dataset.state_dict(int(state.timestamp.sample_in_epoch.value), True)


def _to_plain(state: dict[str, Any]) -> dict[str, Any]:
    """A process's random states without NumPy objects, which a weights-only load refuses."""
    kind, keys, *rest = state["numpy"]
    return {**state, "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest)}


def _from_plain(state: dict[str, Any]) -> dict[str, Any]:
    kind, keys, *rest = state["numpy"]
    return {**state, "numpy": (kind, keys.numpy().astype(np.uint32), *rest)}
