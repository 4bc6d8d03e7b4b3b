"""A model in a folder: model.json says its shape, weights.safetensors holds its tensors; what `--load` starts from."""

from __future__ import annotations

import contextlib
import dataclasses
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.base.errors import UserError
from corpus.base.files import read_json, write_json
from training.model.shapes import ModelConfig, model_config

if TYPE_CHECKING:
    from torch import Tensor

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a .safetensors file with the rights that any new file has."""
    from safetensors.torch import save_file

    path.touch()
    rights = stat.S_IMODE(path.stat().st_mode)
    # It writes through a temporary file, whose rights shut everyone else out.
    save_file(dict(tensors), str(path), metadata={"format": "pt"})
    with contextlib.suppress(OSError):  # file systems without rights have nobody to shut out
        path.chmod(rights)


def save_model(folder: Path, state: Mapping[str, Tensor], cfg: ModelConfig) -> None:
    """Write both files into an existing folder; `state` is MobileLM's."""
    save_tensors(state, folder / WEIGHTS_FILE)
    write_json(folder / MODEL_FILE, {"kind": "model", "format": 1, **dataclasses.asdict(cfg)})


def read_model(folder: Path) -> ModelConfig:
    """The shape of the model in a folder that `save_model` filled; raises UserError when it is none."""
    path = folder / MODEL_FILE
    fields = read_json(path)
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    if fields.pop("kind", None) != "model" or fields.pop("format", None) != 1 or set(fields) != known:
        raise UserError("was not written by this version of training.import_hf", where=str(path), fix="Import again.")
    return model_config(fields)


def load_model(folder: Path) -> tuple[dict[str, Tensor], ModelConfig]:
    """State dict and shape of the model in such a folder; raises UserError when it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    cfg = read_model(folder)
    try:
        return load_file(str(folder / WEIGHTS_FILE)), cfg
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot be read: {error}", where=str(folder / WEIGHTS_FILE), fix="Import again.") from None
