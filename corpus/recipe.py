"""The recipe: one YAML file that fixes a training phase: its data mix, tokenisation, cleaning and hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from corpus.catalogue.models import Source
from corpus.cleaning.specs import CleaningStep
from corpus.config import Strict, parse, read_yaml

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
"""Names of recipes, sources and mixture entries: they become folder names."""

Boundary = Literal["bos", "eos", "both"]


class TrainTokenizer(Strict):
    """Train a byte-level BPE on the recipe's own sources, as the build's first step."""

    kind: Literal["train"] = "train"
    vocab_size: int = Field(ge=512, le=1 << 20)
    """Size of the vocabulary, special tokens included."""
    max_bytes_per_source: int = Field(default=8 << 20, ge=1 << 16)
    """Text taken from the front of each source for training, in bytes of UTF-8."""


class FileTokenizer(Strict):
    """A `tokenizer.json` on disk; a relative path is relative to the recipe's folder."""

    kind: Literal["file"] = "file"
    path: str
    bos_token: str | None = None
    """The token that starts a document; needed when `boundary` is bos or both."""
    eos_token: str | None = None
    """The token that ends a document; needed when `boundary` is eos or both."""


class HubTokenizer(Strict):
    """A `tokenizer.json` of a Hugging Face repository at a pinned revision."""

    kind: Literal["hub"] = "hub"
    repo: str
    revision: str
    bos_token: str | None = None
    eos_token: str | None = None


class LlamaModelsTokenizer(Strict):
    """The Llama 3 or Llama 4 tokenizer shipped inside the `llama-models` package (under Meta's licence)."""

    kind: Literal["llama-models"] = "llama-models"
    name: Literal["llama3", "llama4"]


TokenizerSpec = Annotated[
    TrainTokenizer | FileTokenizer | HubTokenizer | LlamaModelsTokenizer, Field(discriminator="kind")
]


class MixtureEntry(Strict):
    """One named share of the mix."""

    source: str
    """Name of a source: of the catalogue, or of this recipe's own `sources`."""
    weight: float = Field(gt=0, le=1e9)
    """Share of the phase's tokens; the weights of a recipe are divided by their sum."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Refuse a plan that would repeat this source more often than this."""


class Schedule(Strict):
    """The learning-rate curve: linear warm-up from 0, then decay to `final_fraction` of the peak at the last step."""

    kind: Literal["linear", "cosine", "constant"]
    warmup_steps: int = Field(ge=0)
    """Optimiser steps of linear warm-up."""
    final_fraction: float = Field(ge=0, le=1)
    """Learning rate at the last step as a fraction of the peak."""


class Optimizer(Strict):
    """AdamW as in PyTorch: decay is multiplied by the learning rate; norms are never decayed."""

    lr: float = Field(gt=0)
    """Peak learning rate at the recipe's global batch."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Gradient-norm clip; null turns clipping off."""


class Distillation(Strict):
    """Knowledge distillation from a teacher's logits."""

    teacher: str
    """Hub name or local path of a transformers causal language model with the recipe's vocabulary."""
    direction: Literal["forward", "reverse"] = "forward"
    """forward is KL(teacher || student)."""
    temperature: float = Field(default=1.0, gt=0)
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

    rope_theta: float | None = Field(default=None, gt=0)
    """RoPE base of this phase; null keeps the size's own."""
    global_layers: list[int] | None = None
    """0-based layers with global attention for models with sliding windows; null keeps the size's own."""
    qk_norm: bool | None = None
    """Parameter-free RMS norm of queries and keys; null keeps the size's own."""


class Training(Strict):
    """Hyperparameters of the phase."""

    global_batch: int = Field(ge=1)
    """Sequences per optimiser step over all devices."""
    optimizer: Optimizer
    schedule: Schedule
    canonical_nodes: int = Field(default=1, ge=1)
    """Streaming's canonical nodes: fixes the sample order, so that it does not depend on the nodes used."""
    virtual_epoch_samples: int = Field(default=1 << 20, ge=1)
    """Largest number of samples arranged at once (rounded to whole steps of equal-sized virtual epochs)."""
    carry_optimizer: bool = True
    """Start from the previous phase's optimiser state instead of a fresh one."""
    bad_loss: BadLoss = BadLoss()
    distillation: Distillation | None = None
    model: ModelOverrides = ModelOverrides()
    sizes: list[str] = []
    """Model sizes this phase was published for; empty means any."""


class Recipe(Strict):
    """One training phase."""

    name: Name
    family: Name
    """The curriculum it belongs to (r1, pro, mobilellm, sample)."""
    phase: Name
    summary: str
    """One or two sentences for people."""
    tokenizer: TokenizerSpec
    seq_len: int = Field(ge=8, le=1 << 20)
    """Target tokens per sample; a sample stores seq_len + 1 ids."""
    boundary: Boundary
    """Ids put around each document: bos before it, eos after it, or both."""
    document_mask: bool = False
    """Keep attention inside each document (false is what the papers' code does)."""
    tokens: int = Field(gt=0, le=10**18)
    """Target tokens the phase trains on, over all sources."""
    seed: int = Field(default=17, ge=0)
    malformed: Literal["drop", "fail"] = "drop"
    """What a record that cannot be read does: dropped and counted by reason, or fail the build."""
    unit_bytes: int = Field(default=128 << 20, ge=1 << 10)
    """Size of a unit of work in stored bytes; part of what fixes a stream's bytes."""
    mixture: dict[Name, MixtureEntry] = Field(min_length=1)
    sources: dict[Name, Source] = {}
    """Sources of this recipe's own, beside the catalogue's."""
    cleaning: list[CleaningStep] = []
    training: Training
    provenance: dict[str, str] = {}
    """Where each published number comes from, by dotted key; 'ours: ...' marks a choice the papers leave open."""

    @field_validator("tokens", mode="before")
    @classmethod
    def _whole_tokens(cls, value: Any) -> Any:
        # 2.0e12 is how people write budgets; accept it when it is whole.
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        per_step = self.training.global_batch * self.seq_len
        if self.tokens % per_step:
            low = self.tokens // per_step * per_step
            near = f"{low} or {low + per_step}" if low else str(per_step)
            raise ValueError(f"tokens must be a whole number of steps of {per_step} tokens: use {near}")
        for place, step in enumerate(self.cleaning):
            for name in step.sources:
                if name not in self.mixture:
                    raise ValueError(f"cleaning.{place}.sources names '{name}', which is no mixture entry")
        known = set(type(self).model_fields)
        for key in self.provenance:
            if key.split(".")[0] not in known:
                raise ValueError(f"provenance names '{key}', which is no key of a recipe")
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps of the phase."""
        return self.tokens // (self.training.global_batch * self.seq_len)

    @property
    def samples(self) -> int:
        """Samples (sequences) the phase draws."""
        return self.tokens // self.seq_len

    def weight_sum(self) -> float:
        """Sum of the weights as written; published columns do not always sum to 1 or 100."""
        return sum(entry.weight for entry in self.mixture.values())

    def shares(self) -> dict[str, float]:
        """Normalised weight of each mixture entry, in the recipe's order."""
        total = self.weight_sum()
        return {name: entry.weight / total for name, entry in self.mixture.items()}


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file; raises UserError naming file and key."""
    path = Path(path)
    return parse(Recipe, read_yaml(path), str(path))
