"""Saves, restores and stops: everything of a run that outlives its processes passes through here."""

from __future__ import annotations

import contextlib
import time
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
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict

from corpus.base.errors import UserError
from training.run import checkpoint
from training.run.callbacks.background import Background
from training.run.callbacks.guard import BadLossRule
from training.run.checkpoint import Record
from training.run.folder import RunFolder
from training.run.optimizer import apply_settings
from training.run.passes import Passes
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
    """Steps between checkpoints."""
    keep: int
    """Newest checkpoints kept."""
    last_step: int
    """The step this command ends at: the phase's last, or an earlier one to pause at."""
    every: int | None = None
    """Checkpoints at multiples of this step are made and kept for good."""
    minutes: float | None = None
    """Save, too, when the last save was so long ago."""


class Checkpointer(Callback):
    """Composer's own saver and loader are not used: they write in place and load by unpickling.

    The seams are State.get_model_state_dict and get_optim_state_dict, which gather parameters for DDP and FSDP2 alike,
    torch's set_model_state_dict and set_optimizer_state_dict, which deal them out from rank 0, and the AFTER_LOAD
    event, where Composer itself has just loaded.

    A save holds the step up for the copy to the host's memory; rank 0 writes it in the background. The next save, and
    the end, wait for it. An error of the writer stops the run at the next step.
    """

    def __init__(
        self,
        phase: Phase,
        run: RunFolder,
        start: Start,
        rules: SaveRules,
        stop: StopSignal,
        bad_loss: BadLossRule,
        passes: Passes,
        next_batch: Callable[[int], str | None],
    ) -> None:
        """`next_batch(step)` predicts the digest of the batch that follows the first `step` steps."""
        self.phase, self.run, self.start, self.rules, self.stop = phase, run, start, rules, stop
        self.bad_loss, self.passes = bad_loss, passes
        self.next_batch = next_batch
        self.paused_by_signal = False
        self._background = Background()
        self._saved_at = time.monotonic()
        self._random_states: list[dict[str, Any]] | None = None

    def after_load(self, state: State, logger: Logger) -> None:
        """Load, at the point where Composer would: after sharding, before the DDP wrapper.

        Rank 0 alone reads the files; a hundred ranks would read a hundred times as much off a shared disk.
        """
        start = self.start
        if start.path is None:
            return
        large: dict[str, Any] = {"model": {}, "optimizer": {}}
        small: dict[str, Any] = on_first(lambda: self._read(state, large))
        many = state.fsdp_enabled or dist.get_world_size() > 1
        options = StateDictOptions(full_state_dict=many, broadcast_from_rank0=many)
        set_model_state_dict(state.model, large["model"], options=options)
        if start.record or start.optimizer:
            set_optimizer_state_dict(state.model, state.optimizers, large["optimizer"], options=options)
        if start.record:
            clock = small["timestamp"]
            content: dict[str, Any] = {
                "timestamp": {"Timestamp": {**clock, **{key: timedelta(seconds=clock[key]) for key in CLOCKS}}},
                "dataset_state": {"train": start.record.data, "eval": {}},
            }
            state.load_state_dict(content, logger, strict=True)
            self._random_states = [_from_plain(each) for each in small["random"]]
            self.bad_loss.load_state_dict(small["bad_loss"])
        apply_settings(state.optimizers[0], self.phase.recipe.training.optimizer)

    def _read(self, state: State, large: dict[str, Any]) -> dict[str, Any]:
        """Read the files, the tensors into `large`; returns the rest."""
        start = self.start
        assert start.path is not None
        large["model"] = {PREFIX + name: tensor for name, tensor in checkpoint.read_weights(start.path).items()}
        if not (start.record or start.optimizer):
            return {}
        # Copied to the GPU from the mapped file; on the CPU the optimiser keeps the very tensors that are read.
        stored = checkpoint.read_state(start.path, mmap=state.device.name == "gpu")
        (large["optimizer"],) = stored.pop("optimizers").values()
        return stored

    def batch_start(self, state: State, logger: Logger) -> None:
        """Restore the random states where the saved run had them: the loader has started, no forward has run."""
        if self._random_states is not None:
            reproducibility.load_rng_state(self._random_states)
            self._random_states = None

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save when it is time, stop when any process was asked to, and raise what the background writer met."""
        step, rules = state.timestamp.batch.value, self.rules
        # The first process alone knows the time and the writer, any may have been asked to stop: all must agree.
        asked = [self.stop.received, self._is_time(), self._background.has_failed]
        if dist.get_world_size() > 1:
            flags = state.device.tensor_to_device(torch.tensor(asked, dtype=torch.int32))
            dist.all_reduce(flags, reduce_operation="MAX")
            asked = [bool(flag) for flag in flags.tolist()]
        stopping, is_time, has_failed = asked
        if has_failed:
            on_first(self._background.wait)
        ending = stopping or step == rules.last_step
        if ending or is_time or step % rules.interval == 0 or (rules.every and step % rules.every == 0):
            self._save(state)
        if ending:
            on_first(self._background.wait)
        if stopping and step < rules.last_step:
            self.paused_by_signal = True
            state.stop_training()

    def _is_time(self) -> bool:
        minutes = self.rules.minutes
        lead = dist.get_global_rank() == 0
        return lead and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _save(self, state: State) -> None:
        on_first(self._background.wait)
        self._saved_at = time.monotonic()
        step = state.timestamp.batch.value
        # Collective: every rank takes part, rank 0 receives the whole.
        weights, optimizers = state.get_model_state_dict(), state.get_optim_state_dict()
        random_states = [_to_plain(each) for each in reproducibility.get_rng_state()]
        if dist.get_global_rank() != 0:
            return
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
            "microbatch": self.passes.sequences,
            "found_for": self.passes.found_for,
        }
        clock = state.timestamp.state_dict()
        clock.update({key: clock[key].total_seconds() for key in CLOCKS})
        own = on_host({name.removeprefix(PREFIX): tensor for name, tensor in weights.items()})
        content = {
            "optimizers": on_host(optimizers),
            "timestamp": clock,
            "random": random_states,
            "bad_loss": self.bad_loss.state_dict(),
        }

        def write() -> None:
            checkpoint.write(self.run.checkpoints, {**facts, "next_batch": self.next_batch(step)}, own, content)
            checkpoint.prune(self.run.checkpoints, self.rules.keep, self.rules.every)

        self._background.start(write)

    def close(self, state: State, logger: Logger) -> None:
        """Let a save in progress finish, whatever ends the run; its error would hide the one that does."""
        with contextlib.suppress(UserError):
            self._background.wait()

    def _dataset_state(self, state: State) -> dict[str, Any]:
        dataset = state.train_dataloader.dataset  # type: ignore[union-attr]
        return dataset.state_dict(int(state.timestamp.sample_in_epoch.value), True)


def on_host(value: Any) -> Any:
    """A copy of nested dictionaries and lists with every tensor in memory that training does not touch."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_host(each) for key, each in value.items()}
    return [on_host(each) for each in value] if isinstance(value, list) else value


def _to_plain(state: dict[str, Any]) -> dict[str, Any]:
    """A process's random states without NumPy objects, which a weights-only load refuses."""
    kind, keys, *rest = state["numpy"]
    return {**state, "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest)}


def _from_plain(state: dict[str, Any]) -> dict[str, Any]:
    kind, keys, *rest = state["numpy"]
    return {**state, "numpy": (kind, keys.numpy().astype(np.uint32), *rest)}
