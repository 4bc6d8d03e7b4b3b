"""A model in a folder: model.json says its shape, weights.safetensors holds its tensors; what `--load` starts from."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from corpus.base.errors import UserError
from corpus.base.files import read_json, write_json
from training.model.shapes import ModelConfig, model_config

if TYPE_CHECKING:
    from torch import Tensor

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"


DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32"}
"""Names of torch's types in a .safetensors file."""


def write_tensors(tensors: Mapping[str, Tensor], stream: IO[bytes]) -> None:
    """Write tensors on the CPU in the .safetensors format, byte for byte as the library does.

    The library writes to a path alone, through a temporary file whose rights shut everyone else out; a checkpoint is
    hashed while it is written.
    """
    import torch

    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        stream.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a .safetensors file."""
    with path.open("wb") as stream:
        write_tensors(tensors, stream)


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
