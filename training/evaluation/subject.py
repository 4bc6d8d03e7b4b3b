"""What is evaluated: a checkpoint's model, with the tokenizer, manifest and recipe of the phase it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpus.base.errors import UserError
from corpus.base.files import read_json
from corpus.recipe.model import Recipe
from corpus.records.manifest import Manifest
from corpus.tokenization.plain import plain_tokenizer
from training.model.decoder import MobileLM
from training.model.shapes import model_config
from training.run import checkpoint
from training.run.checkpoint import Record
from training.run.folder import latest_checkpoint, phase_manifest


class RunTokenizer:
    """The run's tokenizer as the corpus was made with it: text never becomes a special token."""

    def __init__(self, path: Path) -> None:
        """Read a tokenizer.json; raises UserError."""
        from tokenizers import Tokenizer

        try:
            text = path.read_text(encoding="utf-8")
            self._encoder, self._decoder = Tokenizer.from_str(plain_tokenizer(text)), Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"is not a readable tokenizer.json: {error}", where=str(path)) from None

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone, without boundary ids."""
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._decoder.decode(list(ids)))


@dataclass
class Subject:
    """A loaded checkpoint."""

    root: Path
    """The run's folder."""
    checkpoint: str
    record: Record
    model: MobileLM
    """float32, in evaluation mode."""
    device: torch.device
    manifests: list[Manifest]
    """Of the run's phases up to and including the checkpoint's."""
    phases: list[Recipe]
    """The resolved recipes of the run up to and including that phase."""

    @property
    def manifest(self) -> Manifest:
        """Of the phase the checkpoint belongs to."""
        return self.manifests[-1]

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of the checkpoint's phase."""
        return self.phases[-1]

    @property
    def start_id(self) -> int:
        """The id a document follows in the training data: BOS, or the EOS of the one before."""
        facts = self.manifest.tokenizer
        start = facts.eos_id if self.manifest.boundary == "eos" else facts.bos_id
        assert start is not None, "the build checks that a boundary has its ids"
        return start

    def tokenizer(self) -> RunTokenizer:
        """The run's tokenizer; raises UserError when the run has none."""
        return RunTokenizer(self.root / "tokenizer" / "tokenizer.json")

    def facts(self) -> dict[str, Any]:
        """What every result file starts with."""
        return {
            "run": self.root.name,
            "checkpoint": self.checkpoint,
            "phase": self.record.recipe,
            "step": self.record.step,
            "model": self.record.model["name"],
            "weights_xxh3": self.record.files[checkpoint.WEIGHTS_FILE].xxh3,
            "device": self.device.type,
        }


def load_subject(path: Path, device: torch.device) -> Subject:
    """Load a run's newest checkpoint, or the checkpoint folder named; raises UserError."""
    chosen = latest_checkpoint(path)
    root = chosen.parent.parent
    record = checkpoint.verify(chosen)
    phases = read_json(root / "run.json")["phases"]
    recipes = [Recipe.model_validate(phase["recipe"]) for phase in phases[: record.phase + 1]]
    with torch.device("meta"):
        model = MobileLM(model_config(record.model))
    model.to_empty(device=device)
    model.load_state_dict(checkpoint.read_weights(chosen))
    model.eval().requires_grad_(False)
    prints = [*(phase["manifest"] for phase in phases[: record.phase]), record.data["fields"]["manifest"]]
    manifests = [phase_manifest(root, recipe.name, of) for recipe, of in zip(recipes, prints, strict=True)]
    return Subject(root, chosen.name, record, model, device, manifests, recipes)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Rows of ids as one (B, longest) int64 tensor, zeros on the right: causal attention never looks there."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
