"""From a Hugging Face folder to a model that training can start from."""

from __future__ import annotations

from pathlib import Path, PurePath

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from corpus.base.errors import UserError
from corpus.base.files import read_json
from training.hf.checks import adopt, check_config, kind_of, named, with_rope
from training.hf.config import CONFIG_FILE
from training.hf.output import new_folder
from training.hf.weights import EMBEDDING, HEAD, QK_NORMS, WEIGHTS_FILE, tensor_names
from training.model.decoder import MobileLM
from training.model.saved import save_model
from training.model.shapes import ModelConfig

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Kinds of numbers that are weights as they stand; others need scales that are no part of the model."""


def import_hf(folder: Path, cfg: ModelConfig, out_dir: Path) -> tuple[ModelConfig, list[str]]:
    """Check a local folder against size `cfg` and write weights.safetensors and model.json to `out_dir`.

    Only safetensors are read. What a recipe can override (RoPE base, QK-norm, global layers) is taken from the folder:
    the returned config has it, and the returned notes name each such difference. Anything else that differs raises
    UserError with every mismatch named; so does an untied output head.
    """
    where = str(folder / CONFIG_FILE)
    config = with_rope(read_json(folder / CONFIG_FILE))
    if cfg.family == "tiny" and isinstance(config.get("vocab_size"), int):
        cfg = cfg.with_vocab(config["vocab_size"])
    kind = kind_of(config, cfg, where)
    actual, notes = adopt(cfg, kind, config, where)
    unrolled = not (cfg.layer_repeat > 1 and config.get("layer_sharing") is True)
    check_config(config, actual, kind, unrolled, where)
    # The published v1 repositories say false and tie by a flag of their own.
    untied = config.get("tie_word_embeddings") is False and config.get("share_embedding") is not True
    state = _read_state(folder, kind, actual, unrolled, untied)
    with new_folder(out_dir) as beside:
        save_model(beside, state, actual)
    return actual, notes


def _files(folder: Path) -> dict[str, Path]:
    """The safetensors file of each tensor in the folder, sharded or not."""
    index = folder / f"{WEIGHTS_FILE}.index.json"
    if index.exists():
        shards = read_json(index).get("weight_map", {})
        if not isinstance(shards, dict) or any(PurePath(str(name)).name != name for name in shards.values()):
            raise UserError("weight_map must name files of this folder", where=str(index))
        paths = {folder / str(name) for name in shards.values()}
    else:
        paths = {folder / WEIGHTS_FILE}
    found = {}
    for path in sorted(paths):
        try:
            with safe_open(str(path), framework="pt") as shard:
                found.update(dict.fromkeys(shard.keys(), path))
        except FileNotFoundError:
            fix = "Pickled weights (.bin) are never read; convert them to safetensors where you trust them."
            raise UserError("no such file", where=str(path), fix=fix) from None
        except (OSError, SafetensorError) as error:
            raise UserError(f"is not a complete safetensors file: {error}", where=str(path)) from None
    return found


def _read_state(folder: Path, kind: str, cfg: ModelConfig, unrolled: bool, untied: bool) -> dict[str, Tensor]:
    """MobileLM's state dict from the folder; raises UserError naming tensors that are missing, unknown or misshapen."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MobileLM(cfg).state_dict().items()}
    names, files = tensor_names(cfg, kind, unrolled), _files(folder)
    # Converters that drop one of two tied tensors sometimes keep the head: it is the same matrix.
    if EMBEDDING not in files and HEAD in files:
        names[HEAD] = names.pop(EMBEDDING)
    ones = {name for name in files if kind == "qwen3" and name.endswith(tuple(f".{norm}.weight" for norm in QK_NORMS))}
    tables = {name for name in files if name.endswith("rotary_emb.inv_freq")}
    problems = [f"{name} is missing" for name in names if name not in files]
    if untied:
        problems += [
            f"tie_word_embeddings is false and {name} is missing" for name in (EMBEDDING, HEAD) if name not in files
        ]
    problems += [f"{name} is not part of the model" for name in files if name not in {*names, *ones, *tables, HEAD}]
    if problems:
        raise UserError(f"does not fit size {cfg.name}: {named(problems)}", where=str(folder))

    def read(name: str) -> Tensor:
        with safe_open(str(files[name]), framework="pt") as shard:
            return shard.get_tensor(name)

    state: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        tensor = read(theirs)
        if tensor.shape != shapes[ours]:
            problems.append(f"{theirs} is {tuple(tensor.shape)}, the size has {tuple(shapes[ours])}")
        elif tensor.dtype not in FLOATS:
            problems.append(f"{theirs} holds {str(tensor.dtype).removeprefix('torch.')}")
        elif ours in state and not torch.equal(state[ours], tensor):
            problems.append(f"{theirs} differs from the layer it shares its block with")
        state[ours] = tensor
    problems += [f"{name} is not all ones" for name in sorted(ones) if not bool((read(name) == 1).all())]
    if problems:
        raise UserError(f"does not fit size {cfg.name}: {named(problems)}", where=str(folder))
    if HEAD in files and HEAD not in names and not torch.equal(read(HEAD), state["embed_tokens.weight"]):
        extra = state["embed_tokens.weight"].numel()
        what = (
            f"{HEAD} differs from {EMBEDDING}: an untied checkpoint, with {extra:,} parameters more than the tied size"
        )
        raise UserError(what, where=str(folder), fix="The family's models tie them; start from a tied checkpoint.")
    return state
