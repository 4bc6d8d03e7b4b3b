"""How a model of the family looks as a stock Hugging Face class: its class and its config.json.

Every shape has a class in transformers, so nothing needs remote code:

- `llama`: v1 (rotate-half RoPE, no QK-norm, every layer global). Shared blocks are written out as often as they run.
- `llama4_text`: R1 and tiny (interleaved RoPE, QK-norm without weights after RoPE).
- `smollm3`: Pro (rotate-half, sliding-window and global layers).
- `qwen3`: rotate-half with QK-norm, which only a recipe's override brings about. That class norms before RoPE and has
  norm weights; a rotation does not change a vector's length, so with weights of one the result is the same.
"""

from __future__ import annotations

from typing import Any

from corpus.base.errors import UserError
from training.model.shapes import ModelConfig

CLASSES = {
    "llama": "LlamaForCausalLM",
    "llama4_text": "Llama4ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""transformers class of each model_type we write."""

CONFIG_FILE = "config.json"


def model_type(cfg: ModelConfig) -> str:
    """The transformers model_type that computes what `cfg` does; raises UserError where there is none."""
    if cfg.rope_layout == "interleaved":
        if cfg.sliding_window is not None:
            raise UserError("no stock transformers class has both interleaved RoPE and sliding windows", where=cfg.name)
        return "llama4_text"
    if cfg.qk_norm:
        return "qwen3"
    return "llama" if cfg.sliding_window is None else "smollm3"


def layer_types(cfg: ModelConfig) -> list[str]:
    """Attention kind of each layer that runs, in transformers' words."""
    return [
        "full_attention" if cfg.is_global(layer) else "sliding_attention"
        for layer in range(cfg.layers)
        for _ in range(cfg.layer_repeat)
    ]


def hf_config(cfg: ModelConfig, *, context: int | None = None) -> dict[str, Any]:
    """config.json for `cfg`; `context` is the longest sequence trained on, in tokens (default: `max_positions`)."""
    kind = model_type(cfg)
    layers = cfg.layers * cfg.layer_repeat
    # A class's own defaults fit its published model, not ours: name every field, the null ones too.
    config: dict[str, Any] = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "hidden_size": cfg.dim,
        "num_hidden_layers": layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.ffn,
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": context or cfg.max_positions,
        "rope_theta": cfg.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": cfg.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "torch_dtype": "float32",
    }
    if kind == "llama4_text":
        config |= {
            "intermediate_size_mlp": cfg.ffn,  # the width of dense layers; intermediate_size is the experts'
            "use_qk_norm": cfg.qk_norm,
            "no_rope_layers": [1] * layers,  # 1 means that RoPE is on
            "attn_temperature_tuning": False,
            "attn_scale": 0.1,
            "floor_scale": 8192,
            "attention_chunk_size": 32_768,
            "layer_types": layer_types(cfg),
            "moe_layers": [],  # must be there: derived from a step of 0 it would not be empty but an error
            "interleave_moe_layer_step": 0,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
        }
    else:
        config["mlp_bias"] = False
    if kind == "smollm3":
        config |= {"no_rope_layers": [1] * layers}
    if kind in ("smollm3", "qwen3"):
        config |= {
            "use_sliding_window": cfg.sliding_window is not None,
            "sliding_window": cfg.sliding_window,
            "layer_types": layer_types(cfg),
        }
    return config
