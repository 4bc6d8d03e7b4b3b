"""Clips the gradients and decides, on all processes alike, whether the step's update is applied."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from numpy.typing import NDArray
from torch.distributed.tensor import DTensor

from corpus.recipe.training import BadLoss, Training
from training.run.composer_model import SAMPLES, training_model


@dataclass(frozen=True)
class Verdict:
    """What one step came to, the same on every process."""

    loss: float
    """Mean over the global batch."""
    grad_norm: float
    """L2 norm over all parameters, before clipping."""
    problem: str | None = None
    """Why the update is not applied; None when it is."""
    stop: bool = False
    """The run ends here; else a step with a problem is skipped."""


class BadLossRule:
    """The recipe's `training.bad_loss` over the steps of a phase."""

    def __init__(self, settings: BadLoss) -> None:
        self.settings = settings
        self.skips = 0
        """Steps of the phase skipped so far."""
        self._losses: deque[float] = deque(maxlen=settings.window)

    def judge(self, loss: float, grad_norm: float, *, fresh: bool = False) -> Verdict:
        """Take note of the next step. `fresh`: the optimiser has not made a single step yet.

        A first step that is bad stops the run under any rule: then it is not the batch that is at fault.
        """
        problem = self._problem(loss, grad_norm)
        if problem is None:
            self._losses.append(loss)
            return Verdict(loss, grad_norm)
        skip = self.settings.action == "skip" and self.skips < self.settings.max_skips and not fresh
        self.skips += skip
        return Verdict(loss, grad_norm, problem, stop=not skip)

    def _problem(self, loss: float, grad_norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the norm of the gradients is {grad_norm}"
        spike, window = self.settings.spike, self.settings.window
        if spike is None or len(self._losses) < window:
            return None
        usual = median(self._losses)
        if loss <= spike * usual:
            return None
        return f"the loss is {loss:.4f}, {loss / usual:.3g} times the median of the {window} steps before,"

    def state_dict(self) -> dict[str, Any]:
        """What the next judgement depends on, in plain values."""
        return {"skips": self.skips, "losses": list(self._losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; a shorter window than before forgets the oldest losses."""
        self.skips = int(state["skips"])
        self._losses.clear()
        self._losses.extend(state["losses"])


@dataclass(frozen=True)
class Gathered:
    """What all processes know of one step, a row for each."""

    loss: NDArray[np.float64]
    """(processes, sources): StepSums.loss; the next two likewise."""
    kd: NDArray[np.float64]
    samples: NDArray[np.float64]
    ids: NDArray[np.int64]
    """(processes, sequences): sample numbers of the batch."""


class StepGuard(Callback):
    """Does Composer's GradientClipping's work too, because the norm it computes and drops is half of the evidence.

    All that processes tell each other of a step travels in one exchange and comes off the device in one copy: each of
    them waits for all that the device was asked to do before.
    """

    def __init__(self, training: Training) -> None:
        self.rule = BadLossRule(training.bad_loss)
        self.verdict: Verdict | None = None
        """Of the step in progress, from the end of its backward pass on."""
        self.gathered: Gathered | None = None
        """Likewise."""
        self._clip = training.optimizer.clip_norm

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Between the last backward pass and the optimiser's step."""
        sums = training_model(state).take_sums()
        assert sums is not None, "forward ran in this step"
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), self._clip or math.inf)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        # Gathered and added in one order, not reduced: every process must come to the very same numbers.
        # Sample numbers are below 2^53, which float64 holds exactly.
        ids = state.batch[SAMPLES].to(sums.total.device, torch.float64, non_blocking=True)
        single = torch.stack((sums.total, norm.to(torch.float64)))
        mine = torch.cat((single, sums.loss, sums.kd, sums.samples, ids))
        table = torch.stack(list(dist.all_gather(mine))).cpu().numpy()
        many = len(sums.loss)
        totals, norms, per_source, rows = table[:, 0], table[:, 1], table[:, 2 : 2 + 3 * many], table[:, 2 + 3 * many :]
        losses, kd, samples = np.split(per_source, 3, axis=1)
        self.gathered = Gathered(losses, kd, samples, rows.astype(np.int64))
        strange = norms[~np.isfinite(norms)]
        optimizer = state.optimizers[0]
        loss = float(totals.sum() / samples.sum())
        self.verdict = self.rule.judge(loss, float([*strange, norms[0]][0]), fresh=not optimizer.state)
        if self.verdict.problem:
            # Parameters without a gradient are passed over: neither weights nor moments change.
            optimizer.zero_grad(set_to_none=True)
