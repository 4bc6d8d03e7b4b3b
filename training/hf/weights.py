"""The tensors of a model of the family under the names of its stock class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from training.hf.config import model_type
from training.model.shapes import ModelConfig

WEIGHTS_FILE = "model.safetensors"

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

QK_NORMS = ("q_norm", "k_norm")


def tensor_names(cfg: ModelConfig, kind: str, unrolled: bool = True) -> dict[str, str]:
    """Our tensor's name for each tensor of the class `kind`, the output head left out.

    `unrolled`: shared blocks stand in the checkpoint as often as they run, instead of once.
    """
    feed_forward = "feed_forward" if kind == "llama4_text" else "mlp"
    repeat = cfg.layer_repeat if unrolled else 1
    names = {EMBEDDING: "embed_tokens.weight", "model.norm.weight": "norm.weight"}
    for layer in range(cfg.layers * repeat):
        theirs, ours = f"model.layers.{layer}", f"layers.{layer // repeat}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            names[f"{theirs}.{norm}.weight"] = f"{ours}.{norm}.weight"
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            names[f"{theirs}.self_attn.{projection}.weight"] = f"{ours}.self_attn.{projection}.weight"
        for projection in ("gate_proj", "up_proj", "down_proj"):
            names[f"{theirs}.{feed_forward}.{projection}.weight"] = f"{ours}.mlp.{projection}.weight"
    return names


def to_hf(state: Mapping[str, Tensor], cfg: ModelConfig) -> dict[str, Tensor]:
    """A state dict of MobileLM under the names of its stock class, each tensor with memory of its own.

    The tied head is written too: readers that do not tie by themselves would start from a random head.
    """
    kind = model_type(cfg)
    tensors = {theirs: state[ours].detach().cpu().clone() for theirs, ours in tensor_names(cfg, kind).items()}
    tensors[HEAD] = tensors[EMBEDDING].clone()
    if kind == "qwen3":
        for layer in range(cfg.layers * cfg.layer_repeat):
            for norm in QK_NORMS:
                tensors[f"model.layers.{layer}.self_attn.{norm}.weight"] = torch.ones(cfg.head_dim)
    return tensors
