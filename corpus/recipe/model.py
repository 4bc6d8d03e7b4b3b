"""The recipe: one YAML file that fixes a training phase: its data mix, tokenisation, cleaning and hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from corpus.base.config import Strict, parse, read_yaml
from corpus.catalogue.models import Source
from corpus.cleaning.steps import CleaningStep
from corpus.recipe.training import Training
from corpus.records.stream import Boundary
from corpus.tokenization.specs import TokenizerSpec

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
"""Names of recipes, sources and mixture entries: they become folder names."""


class MixtureEntry(Strict):
    """One named share of the mix."""

    source: str
    """Name of a source: of the catalogue, or of this recipe's own `sources`."""
    weight: float = Field(gt=0, le=1e9)
    """Share of the phase's tokens; the weights of a recipe are divided by their sum."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Refuse a plan that would repeat this source more often than this."""


class Recipe(Strict):
    """One training phase."""

    name: Name
    """Becomes the build's folder under the data folder."""
    family: Name
    """The curriculum it belongs to (r1, pro, mobilellm, sample)."""
    phase: Name
    """Its place in the curriculum (phase1, mid2 ...); names the papers' table its counts are looked up in."""
    summary: str
    """One or two sentences for people."""
    tokenizer: TokenizerSpec
    """What text becomes ids with."""
    seq_len: int = Field(ge=8, le=1 << 20)
    """Target tokens per sample; a sample stores seq_len + 1 ids."""
    boundary: Boundary
    """Ids put around each document: bos before it, eos after it, or both."""
    document_mask: bool = False
    """Keep attention inside each document (false is what the papers' code does)."""
    tokens: int = Field(gt=0, le=10**18)
    """Target tokens the phase trains on, over all sources."""
    seed: int = Field(default=17, ge=0, le=2**32 - 1)
    """Orders the samples and the units; also seeds the trainer, which takes no larger ones."""
    malformed: Literal["drop", "fail"] = "drop"
    """What a record that cannot be read does: dropped and counted by reason, or fail the build."""
    unit_bytes: int = Field(default=128 << 20, ge=1 << 10)
    """Size of a unit of work in stored bytes; part of what fixes a stream's bytes."""
    mixture: dict[Name, MixtureEntry] = Field(min_length=1)
    """The shares of the mix, by name; reports and metrics use these names."""
    sources: dict[Name, Source] = {}
    """Sources of this recipe's own, beside the catalogue's; not redistributable unless they say so."""
    cleaning: list[CleaningStep] = []
    """Cleaning steps, applied in this order; published recipes have none."""
    training: Training
    """The phase's hyperparameters."""
    provenance: dict[str, str] = {}
    """Where each published number comes from, by dotted key; 'ours: ...' marks a choice the papers leave open."""

    @field_validator("sources", mode="before")
    @classmethod
    def _own_stays_private(cls, value: Any) -> Any:
        # The catalogue speaks of public datasets; that a file of one's own may be passed on, only its owner can say.
        if not isinstance(value, dict):
            return value
        unsaid = {"redistributable": False}
        return {name: {**unsaid, **source} if isinstance(source, dict) else source for name, source in value.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        per_step = self.training.global_batch * self.seq_len
        if self.tokens % per_step:
            low = self.tokens // per_step * per_step
            near = f"{low} or {low + per_step}" if low else str(per_step)
            raise ValueError(f"tokens must be a whole number of steps of {per_step} tokens: use {near}")
        warmup = self.training.schedule.warmup_steps
        if warmup and warmup >= self.steps:
            raise ValueError(
                f"training.schedule.warmup_steps: {warmup} steps of warm-up do not fit the {self.steps} steps of the "
                f"phase: use at most {self.steps - 1}"
            )
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

    def phase_tokens(self, max_tokens: int | None) -> int:
        """Target tokens of the phase: its own, or ``max_tokens`` rounded up to whole steps."""
        if max_tokens is None:
            return self.tokens
        per_step = self.training.global_batch * self.seq_len
        return min(self.tokens, -(-max_tokens // per_step) * per_step)

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
