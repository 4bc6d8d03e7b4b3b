"""The optimiser and the learning rate: AdamW as the papers ran it, and a curve that is a pure function of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError
from corpus.recipe.training import Optimizer, Schedule

if TYPE_CHECKING:
    import torch


def lr_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Learning rate of optimiser step `step` (0-based, of `steps`) as a fraction of the peak.

    The warm-up rises from 0 before the first step to the peak at step number `warmup_steps` (counted from 1), so no
    step is spent at a rate of zero; the last step gets exactly `final_fraction`. Past the end the rate stays there.
    """
    done = step + 1
    if done <= schedule.warmup_steps:
        return done / schedule.warmup_steps
    if schedule.kind == "constant":
        return 1.0
    if done >= steps:
        return schedule.final_fraction
    progress = (done - schedule.warmup_steps) / (steps - schedule.warmup_steps)
    remaining = 1.0 - progress if schedule.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return schedule.final_fraction + (1.0 - schedule.final_fraction) * remaining


def check_schedule(schedule: Schedule, steps: int, where: str) -> None:
    """Raise UserError when the curve cannot be followed in `steps` optimiser steps."""
    if schedule.warmup_steps and schedule.warmup_steps >= steps:
        raise UserError(
            f"{schedule.warmup_steps} steps of warm-up do not fit the {steps} steps of the phase",
            where=where,
            fix=f"Add --set schedule.warmup_steps={steps // 10}.",
        )


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices (the embedding among them) with decay, vectors (norms, biases) without."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return groups


def build_optimizer(model: torch.nn.Module, settings: Optimizer, device: str) -> torch.optim.AdamW:
    """AdamW over `model`, one fused kernel per step on CUDA. Decay is multiplied by the learning rate, as in PyTorch.

    Composer's DecoupledAdamW is not used: it does not multiply decay by the rate, so 0.1 would mean something else.
    """
    import torch

    return torch.optim.AdamW(
        decay_groups(model, settings.weight_decay),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=device == "cuda",
    )


def apply_settings(optimizer: torch.optim.Optimizer, settings: Optimizer) -> None:
    """Write the recipe's hyperparameters over those that came with a loaded optimiser state, group by group.

    The choice of kernel is this device's again, not that of the device the state was saved on.
    """
    for group in optimizer.param_groups:
        group.update(optimizer.defaults)
        group.update(lr=settings.lr, betas=settings.betas, eps=settings.eps)
        group["weight_decay"] = settings.weight_decay if group["params"][0].ndim >= 2 else 0.0
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state and group["fused"]:
                # The fused kernel counts steps on the device; state of a loop over parameters counts on the CPU.
                state["step"] = state["step"].to(parameter.device)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
