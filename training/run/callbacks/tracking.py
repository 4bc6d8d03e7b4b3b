"""Weights & Biases: all phases and restarts of a run as one run there.

Composer's own logger counts steps from 1 in each phase, and the service drops steps that go back; with newer versions
of wandb it fails, since it calls what they have no more.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from composer.core import State
from composer.loggers import Logger, LoggerDestination
from composer.utils import dist

from corpus.base.errors import UserError
from corpus.base.files import read_json, write_json

ID_FILE = "wandb.json"


class WeightsAndBiases(LoggerDestination):
    """Sends rank 0's metrics on, by the steps of the whole run."""

    def __init__(self, run: Path, project: str, before: int) -> None:
        """`run` is the run's folder, `before` the steps of the phases before this one."""
        self.folder, self.project, self.before = run, project, before
        self._run: Any = None

    def init(self, state: State, logger: Logger) -> None:
        """Open the run there, or go on with it; raises UserError."""
        if dist.get_global_rank() != 0:
            return
        import wandb

        try:
            self._run = wandb.init(
                project=self.project,
                id=run_id(self.folder, self.project),
                name=self.folder.name,
                resume="allow",
                dir=str(self.folder),
            )
        except Exception as error:  # of many types: no login, no network, no right to the project
            raise UserError(
                f"Weights & Biases: {error}", where="--wandb", fix="Run: wandb login, or set WANDB_MODE=offline."
            ) from None

    def log_hyperparameters(self, hyperparameters: dict[str, Any]) -> None:
        """Show Composer's settings there."""
        if self._run:
            self._run.config.update(hyperparameters, allow_val_change=True)

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Send metrics of a step of the phase."""
        if self._run:
            self._run.log(dict(metrics), step=None if step is None else self.before + step)

    def close(self, state: State, logger: Logger) -> None:
        """Send what is left."""
        if self._run:
            self._run.finish()
            self._run = None


def run_id(folder: Path, project: str) -> str:
    """The run's id in a project, made once and kept in its folder: runs of one name elsewhere have others."""
    path = folder / ID_FILE
    known: dict[str, str] = read_json(path) if path.is_file() else {}
    if project not in known:
        known[project] = f"{folder.name}-{secrets.token_hex(4)}"
        write_json(path, known)
    return known[project]
