"""Whether a folder's config.json computes what a size computes: every difference has a name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from corpus.base.errors import UserError
from training.hf.config import hf_config
from training.model.shapes import SIZES, ModelConfig
from training.run.overrides import model_options

MAX_NAMED = 6
"""Mismatches an error names before it only counts them."""

DEFAULTS: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
"""What transformers assumes for fields that a config.json may leave out."""

ROPE_THETAS = {"llama": 10_000.0, "llama4_text": 500_000.0, "smollm3": 2_000_000.0, "qwen3": 10_000.0}
"""RoPE base of each class where config.json has none."""

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
    "partial_rotary_factor",
    "quantization_config",
)
"""Fields of config.json that must say what the size says."""


def with_rope(config: dict[str, Any]) -> dict[str, Any]:
    """config.json with RoPE in its older place: transformers 5 moved base and scaling into `rope_parameters`."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return config
    scaled = rope.get("rope_type", "default") != "default"
    return {**config, "rope_theta": rope.get("rope_theta"), "rope_scaling": rope if scaled else None}


def kind_of(config: dict[str, Any], cfg: ModelConfig, where: str) -> str:
    """The class the folder was written for; raises UserError when it is not one that computes what the size does."""
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


def adopt(cfg: ModelConfig, kind: str, config: dict[str, Any], where: str) -> tuple[ModelConfig, list[str]]:
    """`cfg` with the folder's values for what recipes can override, and a note for each that differs."""
    theta = config.get("rope_theta", ROPE_THETAS[kind])
    if not isinstance(theta, (int, float)) or isinstance(theta, bool) or not 0 < theta < math.inf:
        raise UserError(f"rope_theta must be a positive number, got {theta!r}", where=where)
    found: dict[str, Any] = {"rope_theta": float(theta)}
    found["qk_norm"] = bool(config.get("use_qk_norm", True)) if kind == "llama4_text" else kind == "qwen3"
    types = config.get("layer_types")
    if cfg.sliding_window is not None and isinstance(types, list):
        found["global_layers"] = tuple(i for i, one in enumerate(types) if one == "full_attention")
    changes = {key: value for key, value in found.items() if value != getattr(cfg, key)}
    notes = [
        f"{key} is {value} (the size's own: {getattr(cfg, key)}); keep it in training with"
        f" {model_options({key: value})}, or training.model.{key} in the recipe"
        for key, value in changes.items()
    ]
    return dataclasses.replace(cfg, **changes), notes


def check_config(config: dict[str, Any], cfg: ModelConfig, kind: str, unrolled: bool, where: str) -> None:
    """Raise UserError naming every field that differs from the size's."""
    wanted = hf_config(cfg) | {"partial_rotary_factor": 1.0, "quantization_config": None}
    if not unrolled:
        wanted["num_hidden_layers"] = cfg.layers
    problems = [
        f"{key} is {_field(config, key)}, the size has {wanted[key]}"
        for key in CHECKED
        if key in wanted and _field(config, key) != wanted[key]
    ]
    if unrolled and config.get("layer_sharing") is True:
        problems.append("layer_sharing is true, but the size shares no layers")
    problems += _attention_problems(config, cfg, kind)
    if problems:
        raise UserError(f"does not fit size {cfg.name}: {named(problems)}", where=where, fix=_fitting_size(config))


def _attention_problems(config: dict[str, Any], cfg: ModelConfig, kind: str) -> list[str]:
    """What is wrong with which layers see what."""
    types = config.get("layer_types")
    if kind == "llama":
        return []
    if types is None:
        # Only llama4_text's default is the same for every layer: all of them chunked.
        types = ["chunked_attention"] * cfg.layers if kind == "llama4_text" else []
        if cfg.sliding_window is not None:
            return ["layer_types is missing"]
    known = {"full_attention"} if cfg.sliding_window is None else {"full_attention", "sliding_attention"}
    if kind == "llama4_text":
        chunk, positions = config.get("attention_chunk_size", 8192), config.get("max_position_embeddings")
        known.add("chunked_attention")
        if "chunked_attention" in types and chunk is not None and chunk < (positions or cfg.max_positions):
            return [f"attention_chunk_size is {chunk}, less than the {positions or cfg.max_positions} positions"]
    other = next((one for one in types if one not in known), None)
    return [f"layer_types has {other!r}"] if other is not None else []


def _field(config: dict[str, Any], key: str) -> Any:
    """A field of config.json as transformers would read it."""
    value = config.get(key, DEFAULTS.get(key))
    match key:
        case "head_dim" if value is None:
            width, heads = config.get("hidden_size"), config.get("num_attention_heads")
            return width // heads if isinstance(width, int) and isinstance(heads, int) and heads else None
        case "rope_scaling" if isinstance(value, dict) and value.get("rope_type", value.get("type")) == "default":
            return None
        case "intermediate_size" if "intermediate_size_mlp" in config:
            return config["intermediate_size_mlp"]  # llama4_text has the experts' width here, and no experts
        case "no_rope_layers" if isinstance(value, list):
            return [int(bool(one)) for one in value]
        case "sliding_window" if not config.get("use_sliding_window"):
            return None
    return value


def named(problems: list[str]) -> str:
    """Problems as one line."""
    rest = len(problems) - MAX_NAMED
    return "; ".join(problems[:MAX_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _fitting_size(config: dict[str, Any]) -> str | None:
    shape = (config.get("hidden_size"), config.get("num_hidden_layers"), config.get("vocab_size"))
    fits = [cfg.name for cfg in SIZES.values() if (cfg.dim, cfg.layers * cfg.layer_repeat, cfg.vocab_size) == shape]
    return f"Its shape is that of --size {fits[0]}." if fits else None
