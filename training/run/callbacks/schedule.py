"""Sets each step's learning rate."""

from __future__ import annotations

from composer.core import Callback, State
from composer.loggers import Logger

from corpus.recipe.training import Training
from training.run.optimizer import lr_factor, set_lr


class LearningRate(Callback):
    """The recipe's curve, computed from the step alone, so that nothing of it needs saving or restoring.

    Composer's own schedulers are stepped before its clock advances: the first two batches would share a rate and the
    last would miss the curve's end.
    """

    def __init__(self, training: Training, steps: int) -> None:
        self.training, self.steps = training, steps

    def batch_start(self, state: State, logger: Logger) -> None:
        """Before each optimiser step."""
        factor = lr_factor(self.training.schedule, state.timestamp.batch.value, self.steps)
        set_lr(state.optimizers[0], self.training.optimizer.lr * factor)
