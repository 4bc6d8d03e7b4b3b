"""What is exported: a checkpoint's weights, with the manifest and tokenizer of the phase it was made in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from corpus.base.errors import UserError
from corpus.base.files import read_json
from corpus.records.manifest import Manifest
from training.model.shapes import ModelConfig
from training.run import checkpoint
from training.run.checkpoint import Record
from training.run.folder import latest_checkpoint, model_config, phase_manifest


@dataclass(frozen=True)
class Source:
    """A verified checkpoint and what the run recorded beside it."""

    root: Path
    """The run's folder."""
    checkpoint: Path
    record: Record
    run: dict[str, Any]
    """run.json."""
    manifest: Manifest
    """Of the phase the checkpoint was made in."""

    @property
    def model(self) -> ModelConfig:
        """The model as that phase trained it."""
        return model_config(self.record.model)

    @property
    def tokenizer_json(self) -> Path:
        """The run's tokenizer.json."""
        return self.root / "tokenizer" / "tokenizer.json"

    def weights(self) -> dict[str, Tensor]:
        """MobileLM's state dict."""
        return checkpoint.read_weights(self.checkpoint)


def open_source(path: Path) -> Source:
    """The newest checkpoint of a run's folder, or the checkpoint folder named; raises UserError when it is neither."""
    chosen = latest_checkpoint(path).resolve()
    root = chosen.parent.parent
    record = checkpoint.verify(chosen)
    if not (root / "run.json").is_file():
        raise UserError(
            "lies outside a run, whose manifest and tokenizer an export needs",
            where=str(path),
            fix="Name it inside its run: RUN/checkpoints/NAME.",
        )
    manifest = phase_manifest(root, record.recipe, record.data["fields"]["manifest"])
    return Source(root, chosen, record, read_json(root / "run.json"), manifest)
