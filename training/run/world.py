"""The job's processes and this machine: how many there are, and whether they can train."""

from __future__ import annotations

import importlib.util
import os

from corpus.base.errors import UserError
from training.data.elastic import check_world
from training.run.options import Options
from training.run.phase_teacher import check_teacher
from training.run.phases import Phase


def world_size() -> int:
    """Processes of the job, as the launcher set them; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Processes of the job on this node; 1 without a launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_startable(phase: Phase) -> None:
    """Raise UserError when the job's processes cannot train the phase."""
    training, local = phase.recipe.training, local_world_size()
    check_world(training.global_batch, training.canonical_nodes, world_size() // local, local)
    check_teacher(phase)


def check_device(options: Options) -> None:
    """Raise UserError when this machine cannot run the options. Imports torch."""
    if options.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError("wandb is not installed", where="--wandb", fix="Run: pip install -e '.[wandb]'")
    import torch

    if options.precision == "amp_bf16" and not torch.cuda.is_available():
        raise UserError(
            "amp_bf16 needs a GPU, and torch sees none", where="--precision", fix="Leave it out, or use fp32."
        )
    if torch.cuda.is_available() and local_world_size() > torch.cuda.device_count():
        raise UserError(
            f"{local_world_size()} processes on a node with {torch.cuda.device_count()} GPUs",
            where="composer -n",
            fix=f"Use -n {torch.cuda.device_count()}, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU.",
        )
