"""The `training` of a recipe: the hyperparameters of its phase."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from corpus.base.config import Strict

Beta = Annotated[float, Field(ge=0, lt=1)]
"""Decay of one of Adam's running means."""


class Schedule(Strict):
    """The learning-rate curve: linear warm-up from 0, then decay to `final_fraction` of the peak at the last step."""

    kind: Literal["linear", "cosine", "constant"]
    """Shape of the decay after the warm-up."""
    warmup_steps: int = Field(ge=0)
    """Optimiser steps of linear warm-up."""
    final_fraction: float = Field(ge=0, le=1)
    """Learning rate at the last step as a fraction of the peak."""

    @model_validator(mode="after")
    def _constant_ends_at_its_peak(self) -> Schedule:
        if self.kind == "constant" and self.final_fraction != 1.0:
            raise ValueError(
                f"a constant schedule cannot end at {self.final_fraction} of its peak: set final_fraction to 1, or the "
                "kind to linear or cosine"
            )
        return self


class Optimizer(Strict):
    """AdamW as in PyTorch: decay is multiplied by the learning rate; norms are never decayed."""

    lr: float = Field(gt=0, le=1e30)
    """Peak learning rate at the recipe's global batch."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    eps: float = Field(default=1e-8, ge=1e-30, le=1e30)
    """Added to the denominator."""
    weight_decay: float = Field(default=0.1, ge=0, le=1e30)
    """Per step, multiplied by the learning rate."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Gradient-norm clip; null turns clipping off."""


class Distillation(Strict):
    """Knowledge distillation from a teacher's logits."""

    teacher: str
    """Hub name or local path of a transformers causal language model with the recipe's vocabulary."""
    direction: Literal["forward", "reverse"] = "forward"
    """forward is KL(teacher || student)."""
    temperature: float = Field(default=1.0, gt=0)
    """Both distributions' logits are divided by it."""
    ce_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of the plain next-token loss; the KL term, times temperature squared, gets 1 - ce_weight."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep only the teacher's k most likely tokens, all others merged into one outcome (null: the full vocabulary)."""
    cache: bool = False
    """Read the teacher's top k from what `python -m training.teacher` wrote beside the streams; needs top_k."""

    @model_validator(mode="after")
    def _cache_holds_top_k(self) -> Distillation:
        if self.cache and self.top_k is None:
            raise ValueError("cache needs top_k: the number of tokens that python -m training.teacher kept")
        return self


class BadLoss(Strict):
    """What happens at a step whose loss or gradient norm is not finite, or whose loss jumps up."""

    action: Literal["stop", "skip"] = "stop"
    """stop ends the run before the update; skip leaves weights and optimizer as they are and goes on with the next
    batch. Either way the batch's samples are written down, and the step counts: the schedule and the data go on."""
    spike: float | None = Field(default=None, gt=1)
    """A loss of more than this many times the median of the last `window` good steps is bad too (null: never)."""
    window: int = Field(default=128, ge=2, le=10_000)
    """Good steps the median is taken over; before a phase has had as many, no loss counts as a jump."""
    max_skips: int = Field(default=10, ge=1)
    """Steps a phase may skip; the next bad one stops the run."""


class ModelOverrides(Strict):
    """Model settings that a phase changes, or that the papers leave open."""

    rope_theta: float | None = Field(default=None, gt=0, le=1e30)
    """RoPE base of this phase; null keeps the size's own."""
    global_layers: list[NonNegativeInt] | None = None
    """0-based layers with global attention for models with sliding windows; null keeps the size's own."""
    qk_norm: bool | None = None
    """Parameter-free RMS norm of queries and keys; null keeps the size's own."""


class Training(Strict):
    """Hyperparameters of the phase."""

    global_batch: int = Field(ge=1)
    """Sequences per optimiser step over all devices."""
    optimizer: Optimizer
    """AdamW's settings."""
    schedule: Schedule
    """The learning-rate curve."""
    canonical_nodes: int = Field(default=1, ge=1)
    """Streaming's canonical nodes: fixes the sample order, so that it does not depend on the nodes used."""
    virtual_epoch_samples: int = Field(default=1 << 20, ge=1)
    """Largest number of samples arranged at once (rounded to whole steps of equal-sized virtual epochs)."""
    carry_optimizer: bool = True
    """Start from the previous phase's optimiser state instead of a fresh one."""
    bad_loss: BadLoss = BadLoss()
    """What happens at a step whose loss is not finite or jumps."""
    distillation: Distillation | None = None
    """A teacher to learn from; null trains on the text alone."""
    model: ModelOverrides = ModelOverrides()
    """Model settings that the phase changes."""
    sizes: list[str] = []
    """Model sizes this phase was published for; empty means any."""

    @model_validator(mode="after")
    def _batch_is_dealt_evenly(self) -> Training:
        if self.global_batch % self.canonical_nodes:
            raise ValueError(
                f"canonical_nodes {self.canonical_nodes} does not divide global_batch {self.global_batch}, so virtual "
                "epochs could not be dealt out without repeating samples"
            )
        return self
