"""What `--load` names: the weights that a run's first phase starts from, and whether they are of the phase's model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from corpus.base.files import sha256_file
from corpus.recipe.model import load_recipe
from corpus.recipe.training import ModelOverrides
from training.model.saved import MODEL_FILE, WEIGHTS_FILE, read_model
from training.model.shapes import SIZES, ModelConfig, model_config
from training.run import checkpoint
from training.run.folder import latest_checkpoint
from training.run.overrides import model_options
from training.run.phases import Phase
from training.run.standing import MODEL_FLAG, model_differences

MAX_NAMED = 6
"""Tensors an error names before it only counts them."""


@dataclass(frozen=True)
class StartingWeights:
    """Weights found under the path given."""

    path: Path
    """A checkpoint's folder or a .safetensors file."""
    model: ModelConfig | None
    """What they belong to; None for a .safetensors file by itself."""
    tokenizer: str | None
    """SHA-256 of the tokenizer.json of the run they come from, where there is one."""
    optimizer: bool
    """An optimiser state lies beside them."""


def find_weights(load: Path, *, verify: bool = True) -> StartingWeights:
    """The weights of a run, a checkpoint folder, a folder of training.import_hf or a .safetensors file.

    Raises UserError when there are none, or, with `verify`, when a checkpoint's files are damaged.
    """
    where = f"--load {load}"
    if load.is_file():
        if load.suffix != ".safetensors":
            raise UserError("is no .safetensors file", where=where, fix="Others can run code when they are read.")
        if (load.parent / checkpoint.RECORD_FILE).is_file():
            return dataclasses.replace(_of_checkpoint(load.parent, verify), path=load, optimizer=False)
        if load.name == WEIGHTS_FILE and (load.parent / MODEL_FILE).is_file():
            return _imported(load.parent)
        return StartingWeights(load, None, None, False)
    if not load.exists():
        raise UserError("no such run, folder or file", where=where)
    if (load / MODEL_FILE).is_file():
        return _imported(load)
    if (load / "config.json").is_file():
        fix = f"Run: python -m training.import_hf {load} --size SIZE --to IMPORTED, and give --load IMPORTED."
        raise UserError("is a Hugging Face folder", where=where, fix=fix)
    return _of_checkpoint(latest_checkpoint(load), verify)


def _imported(folder: Path) -> StartingWeights:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError("is missing", where=str(path), fix="Import again.")
    return StartingWeights(path, read_model(folder), None, False)


def _of_checkpoint(folder: Path, verify: bool) -> StartingWeights:
    record = checkpoint.verify(folder) if verify else checkpoint.read_record(folder)
    tokenizer = folder.resolve().parent.parent / "tokenizer" / "tokenizer.json"
    return StartingWeights(
        folder, model_config(record.model), sha256_file(tokenizer) if tokenizer.is_file() else None, True
    )


def check_weights(weights: StartingWeights, phase: Phase, load: Path, *, allow: bool) -> dict[str, list[Any]]:
    """Compare the weights' model with the phase's; returns what differs as {field: [theirs, the phase's]}.

    What the recipe's file changes on purpose may differ; anything else raises UserError naming each field, unless
    `allow` (the user gave --allow-changed-model). Tensors that do not fit always raise it.
    """
    where = f"--load {load}"
    changed = _differences(weights, phase)
    odd = _odd_tensors(weights, phase.model)
    if odd and not changed:
        rest = f"; and {len(odd) - MAX_NAMED} more" if len(odd) > MAX_NAMED else ""
        fix = "Name a checkpoint of this size, or make one with python -m training.import_hf."
        text = f"does not fit size {phase.model.name}: {'; '.join(odd[:MAX_NAMED])}{rest}"
        raise UserError(text, where=where, fix=fix)
    own = load_recipe(phase.path).training.model
    meant = {
        name
        for name in ModelOverrides.model_fields
        if getattr(own, name) is not None and getattr(own, name) == getattr(phase.recipe.training.model, name)
    }
    refused = {name: pair for name, pair in changed.items() if odd or name not in meant}
    if refused and (odd or not allow):
        named = "; ".join(f"{name} is {was}, {phase.name} has {now}" for name, (was, now) in refused.items())
        raise UserError(f"holds another model: {named}", where=where, fix=_fix(weights, phase, refused, bool(odd)))
    return changed


def _differences(weights: StartingWeights, phase: Phase) -> dict[str, list[Any]]:
    changed: dict[str, list[Any]] = {}
    if weights.model:
        changed = model_differences(weights.model, phase.model)
    facts = phase.manifest.tokenizer
    if weights.tokenizer and weights.tokenizer != facts.sha256:
        changed["tokenizer"] = [weights.tokenizer[:12], facts.sha256[:12]]
    return changed


def _odd_tensors(weights: StartingWeights, model: ModelConfig) -> list[str]:
    """What keeps the tensors from being loaded into `model`."""
    import torch
    from safetensors import SafetensorError, safe_open

    from training.model.decoder import MobileLM

    path = weights.path if weights.path.is_file() else weights.path / checkpoint.WEIGHTS_FILE
    try:
        with safe_open(str(path), framework="pt") as file:
            theirs = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"is not a complete safetensors file: {error}", where=str(path)) from None
    with torch.device("meta"):
        ours = {name: list(tensor.shape) for name, tensor in MobileLM(model).state_dict().items()}
    problems = [
        f"{name} is {theirs[name]}, the size has {shape}"
        for name, shape in ours.items()
        if name in theirs and theirs[name] != shape
    ]
    problems += [f"{name} is missing" for name in ours if name not in theirs]
    return problems + [f"{name} is not part of the model" for name in theirs if name not in ours]


def _fix(weights: StartingWeights, phase: Phase, refused: dict[str, list[Any]], shapes: bool) -> str:
    if shapes:
        if set(refused) <= {"vocab_size", "tokenizer"}:
            return "Train on a recipe with the tokenizer of these weights."
        size = weights.model.name if weights.model else ""
        return f"They are of --size {size}." if size in SIZES and size != phase.model.name else "They cannot be loaded."
    if keep := model_options({name: was for name, (was, _) in refused.items()}):
        return f"Keep theirs with {keep}, or change the model on purpose with {MODEL_FLAG}."
    return f"Change the model on purpose with {MODEL_FLAG}."
