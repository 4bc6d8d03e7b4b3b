"""Make a Hugging Face checkpoint a starting point: `python -m training.import_hf FOLDER --size NAME --to OUT`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError, command
from corpus.base.files import read_json
from training.model.shapes import SIZES, ModelConfig, get_size

if TYPE_CHECKING:
    from torch import Tensor

MODEL_FILE = "model.json"
IMPORTED_WEIGHTS = "weights.safetensors"
MAX_NAMED = 6
"""Mismatches an error names before it only counts them."""

DEFAULTS: dict[str, Any] = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None}
"""What transformers assumes for fields that a config.json may leave out."""

CHECKED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "rms_norm_eps",
    "hidden_act",
    "attention_bias",
    "mlp_bias",
    "no_rope_layers",
    "moe_layers",
    "sliding_window",
    "rope_scaling",
)
"""Fields of config.json that must say what the size says."""


def import_hf(folder: Path, cfg: ModelConfig, out_dir: Path) -> tuple[ModelConfig, list[str]]:
    """Check a local folder against size `cfg` and write weights.safetensors and model.json to `out_dir`.

    Only safetensors are read. What a recipe can override (RoPE base, QK-norm, global layers) is taken from the folder:
    the returned config has it, and the returned notes name each such difference. Anything else that differs raises
    UserError with every mismatch named; so does an untied output head.
    """
    from safetensors.torch import save_file

    from training.hf.config import CONFIG_FILE, new_folder, write_json

    where = str(folder / CONFIG_FILE)
    config = _with_rope(read_json(folder / CONFIG_FILE))
    if cfg.family == "tiny" and isinstance(config.get("vocab_size"), int):
        cfg = cfg.with_vocab(config["vocab_size"])
    kind = _kind(config, cfg, where)
    actual, notes = _adopt(cfg, kind, config, where)
    unrolled = not (cfg.layer_repeat > 1 and config.get("layer_sharing") is True)
    _check_config(config, actual, unrolled, where)
    state = _read_state(folder, kind, actual, unrolled)
    with new_folder(out_dir) as beside:
        save_file(state, str(beside / IMPORTED_WEIGHTS), metadata={"format": "pt"})
        write_json(beside / MODEL_FILE, {"kind": "model", "format": 1, **dataclasses.asdict(actual)})
    return actual, notes


def load_imported(folder: Path) -> tuple[dict[str, Tensor], ModelConfig]:
    """State dict and config of a folder that `import_hf` wrote; raises UserError when it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / MODEL_FILE
    fields = read_json(path)
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    if fields.pop("kind", None) != "model" or fields.pop("format", None) != 1 or set(fields) != known:
        raise UserError("was not written by this version of training.import_hf", where=str(path), fix="Import again.")
    if fields["global_layers"] is not None:
        fields["global_layers"] = tuple(fields["global_layers"])
    try:
        return load_file(str(folder / IMPORTED_WEIGHTS)), ModelConfig(**fields)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot be read: {error}", where=str(folder / IMPORTED_WEIGHTS), fix="Import again.") from None


def _with_rope(config: dict[str, Any]) -> dict[str, Any]:
    """config.json with RoPE in its older place: transformers 5 moved base and scaling into `rope_parameters`."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return config
    scaled = rope.get("rope_type", "default") != "default"
    return {**config, "rope_theta": rope.get("rope_theta"), "rope_scaling": rope if scaled else None}


def _kind(config: dict[str, Any], cfg: ModelConfig, where: str) -> str:
    kind = config.get("model_type")
    # The published v1 repositories have a class of their own, with llama's tensors.
    kind = "llama" if kind == "mobilellm" else kind
    if cfg.rope_layout == "interleaved":
        fitting = ["llama4_text"]
    else:
        fitting = ["llama", "qwen3"] if cfg.sliding_window is None else ["smollm3", "qwen3"]
    if kind not in fitting:
        what = f"model_type is '{kind}', but size {cfg.name} is stored as {' or '.join(fitting)}"
        raise UserError(
            what, where=where, fix="Use the checkpoint's own --size; `python -m training.sizes` lists them."
        )
    return str(kind)


def _adopt(cfg: ModelConfig, kind: str, config: dict[str, Any], where: str) -> tuple[ModelConfig, list[str]]:
    """`cfg` with the folder's values for what recipes can override, and a note for each that differs."""
    theta = config.get("rope_theta", cfg.rope_theta)
    if not isinstance(theta, (int, float)) or theta <= 0:
        raise UserError(f"rope_theta must be a positive number, got {theta!r}", where=where)
    found: dict[str, Any] = {"rope_theta": float(theta)}
    found["qk_norm"] = bool(config.get("use_qk_norm", True)) if kind == "llama4_text" else kind == "qwen3"
    if cfg.sliding_window is not None and isinstance(config.get("layer_types"), list):
        types = config["layer_types"]
        found["global_layers"] = tuple(i for i, one in enumerate(types) if one == "full_attention")
    changes = {key: value for key, value in found.items() if value != getattr(cfg, key)}
    notes = [
        f"{key} is {value} (the size's own: {getattr(cfg, key)}); keep it in training with the recipe key"
        f" training.model.{key}"
        for key, value in changes.items()
    ]
    return dataclasses.replace(cfg, **changes), notes


def _check_config(config: dict[str, Any], cfg: ModelConfig, unrolled: bool, where: str) -> None:
    """Raise UserError naming every field that differs from the size's."""
    from training.hf.config import hf_config

    wanted = hf_config(cfg)
    if not unrolled:
        wanted["num_hidden_layers"] = cfg.layers
    problems = [
        f"{key} is {_field(config, key)}, the size has {wanted[key]}"
        for key in CHECKED
        if key in wanted and _field(config, key) != wanted[key]
    ]
    if unrolled and config.get("layer_sharing") is True:
        problems.append("layer_sharing is true, but the size shares no layers")
    if problems:
        raise UserError(f"does not fit size {cfg.name}: {_named(problems)}", where=where, fix=_fitting_size(config))


def _field(config: dict[str, Any], key: str) -> Any:
    """A field of config.json as transformers would read it."""
    value = config.get(key, DEFAULTS.get(key))
    match key:
        case "head_dim" if value is None and config.get("num_attention_heads"):
            return config.get("hidden_size", 0) // config["num_attention_heads"]
        case "intermediate_size" if "intermediate_size_mlp" in config:
            return config["intermediate_size_mlp"]  # llama4_text has the experts' width here, and no experts
        case "no_rope_layers" if isinstance(value, list):
            return [int(bool(one)) for one in value]
        case "sliding_window" if not config.get("use_sliding_window"):
            return None
    return value


def _named(problems: list[str]) -> str:
    rest = len(problems) - MAX_NAMED
    return "; ".join(problems[:MAX_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _fitting_size(config: dict[str, Any]) -> str | None:
    shape = (config.get("hidden_size"), config.get("num_hidden_layers"), config.get("vocab_size"))
    fits = [cfg.name for cfg in SIZES.values() if (cfg.dim, cfg.layers * cfg.layer_repeat, cfg.vocab_size) == shape]
    return f"Its shape is that of --size {fits[0]}." if fits else None


def _files(folder: Path) -> dict[str, Path]:
    """The safetensors file of each tensor in the folder, sharded or not."""
    from safetensors import SafetensorError, safe_open

    from training.hf.config import WEIGHTS_FILE

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


def _read_state(folder: Path, kind: str, cfg: ModelConfig, unrolled: bool) -> dict[str, Tensor]:
    """MobileLM's state dict from the folder; raises UserError naming tensors that are missing, unknown or misshapen."""
    import torch
    from safetensors import safe_open

    from training.hf.config import EMBEDDING, HEAD, QK_NORMS, tensor_names
    from training.model.decoder import MobileLM

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MobileLM(cfg).state_dict().items()}
    names, files = tensor_names(cfg, kind, unrolled), _files(folder)
    # Converters that drop one of two tied tensors sometimes keep the head: it is the same matrix.
    if EMBEDDING not in files and HEAD in files:
        names[HEAD] = names.pop(EMBEDDING)
    ones = {name for name in files if kind == "qwen3" and name.split(".")[-2] in QK_NORMS}
    tables = {name for name in files if name.endswith("rotary_emb.inv_freq")}
    problems = [f"{name} is missing" for name in names if name not in files]
    problems += [f"{name} is not part of the model" for name in files if name not in {*names, *ones, *tables, HEAD}]
    if problems:
        raise UserError(f"does not fit size {cfg.name}: {_named(problems)}", where=str(folder))

    def read(name: str) -> Tensor:
        with safe_open(str(files[name]), framework="pt") as shard:
            return shard.get_tensor(name)

    state: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        tensor = read(theirs)
        if tensor.shape != shapes[ours]:
            problems.append(f"{theirs} is {tuple(tensor.shape)}, the size has {tuple(shapes[ours])}")
        elif ours in state and not torch.equal(state[ours], tensor):
            problems.append(f"{theirs} differs from the layer it shares its block with")
        state[ours] = tensor
    problems += [f"{name} is not all ones" for name in sorted(ones) if not bool((read(name) == 1).all())]
    if problems:
        raise UserError(f"does not fit size {cfg.name}: {_named(problems)}", where=str(folder))
    if HEAD in files and HEAD not in names and not torch.equal(read(HEAD), state["embed_tokens.weight"]):
        extra = state["embed_tokens.weight"].numel()
        what = (
            f"{HEAD} differs from {EMBEDDING}: an untied checkpoint, with {extra:,} parameters more than the tied size"
        )
        raise UserError(what, where=str(folder), fix="The family's models tie them; start from a tied checkpoint.")
    return state


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.import_hf`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.import_hf",
        description="Check a local Hugging Face checkpoint against a size and write it for the trainer's --load.",
    )
    parser.add_argument("folder", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("--size", required=True, help="the checkpoint's size; `python -m training.sizes` lists them")
    parser.add_argument("--to", type=Path, required=True, metavar="OUT", help="folder to write; must not exist")
    args = parser.parse_args(argv)
    _, notes = import_hf(args.folder, get_size(args.size), args.to)
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {args.to}; train on with --load {args.to}")


if __name__ == "__main__":
    with command():
        main()
