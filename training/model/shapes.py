"""The model sizes of the family: one table with exact parameter counts.

Nothing here imports torch, so that commands which only need the arithmetic answer at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from corpus.base.errors import UserError, nearest
from corpus.recipe.training import ModelOverrides


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shape and the arithmetic of one model."""

    name: str
    """What `--size` takes."""
    family: Literal["v1", "r1", "pro", "tiny"]
    """Which of the family's architectures it follows; also the key of its curriculum."""
    layers: int
    """Stored transformer blocks; a block may run more than once, see `layer_repeat`."""
    heads: int
    """Query heads; heads * head_dim is the width of the attention output."""
    kv_heads: int
    """Key/value heads; each serves heads / kv_heads query heads."""
    dim: int
    """Width of the residual stream."""
    ffn: int
    """Inner width of the SwiGLU feed-forward."""
    vocab_size: int
    """Rows of the embedding matrix."""
    rope_theta: float
    """Base of the rotary frequencies; a recipe's `training.model.rope_theta` replaces it."""
    rope_layout: Literal["half", "interleaved"]
    """Which elements of a head turn together: i with i + head_dim/2 (half), or 2i with 2i + 1 (interleaved)."""
    max_positions: int
    """Longest sequence the rotary tables cover, in tokens."""
    seq_len: int
    """Sequence length of the published pre-training, in tokens (ours where it is not published)."""
    qk_norm: bool = False
    """RMS norm, without weights, of each query and key head after RoPE."""
    head_dim: int = 64
    """Width of one attention head."""
    norm_eps: float = 1e-5
    """Epsilon of every RMS norm."""
    layer_repeat: int = 1
    """Times each block runs in a row (layer sharing: 2)."""
    sliding_window: int | None = None
    """Keys a query of a local layer sees, itself included; None: every layer is global."""
    global_layers: tuple[int, ...] | None = None
    """0-based blocks with full attention when there is a sliding window."""
    tied: bool = True
    """The output head is the embedding matrix; the family has no other kind."""
    published: int | None = None
    """Parameter count of the published checkpoint; None for shapes of our own."""

    def __post_init__(self) -> None:
        assert self.heads % self.kv_heads == 0 and self.head_dim % 2 == 0 and self.tied
        assert (self.sliding_window is None) == (self.global_layers is None)

    def with_vocab(self, vocab_size: int) -> ModelConfig:
        """The same model for another tokenizer; it then has no published count."""
        if vocab_size == self.vocab_size:
            return self
        return dataclasses.replace(self, vocab_size=vocab_size, published=None)

    def is_global(self, layer: int) -> bool:
        """Whether block `layer` attends to the whole sequence."""
        return self.global_layers is None or layer in self.global_layers


def _v1(name: str, layers: int, heads: int, kv_heads: int, ffn: int, published: int, repeat: int = 1) -> ModelConfig:
    return ModelConfig(
        name=name, family="v1", layers=layers, heads=heads, kv_heads=kv_heads, dim=heads * 64, ffn=ffn,
        vocab_size=32_000, rope_theta=10_000.0, rope_layout="half", max_positions=2048, seq_len=2048,
        layer_repeat=repeat, published=published,
    )  # fmt: skip


def _r1(name: str, layers: int, heads: int, kv_heads: int, ffn: int, published: int) -> ModelConfig:
    # The base models' rope_theta is not printed: 1e6 follows from the released SFT instructions, which multiply
    # it by 8 to reach the 8e6 and 32,768 positions of the post-trained models.
    return ModelConfig(
        name=name, family="r1", layers=layers, heads=heads, kv_heads=kv_heads, dim=heads * 64, ffn=ffn,
        vocab_size=128_256, rope_theta=1_000_000.0, rope_layout="interleaved", max_positions=32_768, seq_len=2048,
        qk_norm=True, published=published,
    )  # fmt: skip


# Published accounts of Pro's global layers disagree: "every 4th, first and last" (9 layers), or every 4th plus the
# last (8: 3, 7, ..., 27, 29). Nine is the count that reproduces the published KV-cache sizes, so it is our default;
# `training.model.global_layers` takes the other. RoPE base and the absence of QK-norm are ours too (unpublished).
_PRO = ModelConfig(
    name="pro", family="pro", layers=30, heads=20, kv_heads=4, dim=1280, ffn=6144, vocab_size=202_048,
    rope_theta=500_000.0, rope_layout="half", max_positions=131_072, seq_len=2048,
    sliding_window=512, global_layers=(0, 4, 8, 12, 16, 20, 24, 28, 29), published=1_084_453_120,
)  # fmt: skip


# R1's features at a size that a laptop's CPU trains in minutes; the vocabulary is the recipe's tokenizer's.
_TINY = ModelConfig(
    name="tiny", family="tiny", layers=4, heads=4, kv_heads=2, head_dim=32, dim=128, ffn=384, vocab_size=8192,
    rope_theta=10_000.0, rope_layout="interleaved", max_positions=8192, seq_len=512, qk_norm=True,
)  # fmt: skip


SIZES: Mapping[str, ModelConfig] = MappingProxyType(
    {
        config.name: config
        for config in (
            _v1("125m", 30, 9, 3, 1536, 124_635_456),
            _v1("125m-ls", 30, 9, 3, 1536, 124_635_456, repeat=2),
            _v1("350m", 32, 15, 5, 2560, 345_355_200),
            _v1("350m-ls", 32, 15, 5, 2560, 345_355_200, repeat=2),
            _v1("600m", 40, 18, 6, 3072, 603_188_352),
            _v1("1b", 54, 20, 5, 3584, 1_005_461_760),
            _v1("1.5b", 54, 25, 5, 4352, 1_511_188_800),
            _r1("140m", 15, 9, 3, 2048, 140_248_512),
            _r1("360m", 15, 16, 4, 4096, 359_431_168),
            _r1("950m", 22, 24, 6, 6144, 949_685_760),
            _PRO,
            _TINY,
        )
    }
)
"""Every size by name."""


CURRICULA: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "v1": ("mobilellm",),
        "r1": ("r1_phase1", "r1_phase2", "r1_mid1", "r1_mid2"),
        "pro": ("pro_phase1",),
        "tiny": ("sample",),
    }
)
"""Recipes of each family's documented curriculum, in order."""


def get_size(name: str) -> ModelConfig:
    """The size called `name`; raises UserError with the nearest known name."""
    try:
        return SIZES[name.lower()]
    except KeyError:
        raise UserError(f"unknown size '{name}'", where="--size", fix=nearest(name.lower(), SIZES)) from None


def block_matmul_parameters(cfg: ModelConfig) -> int:
    """Weights of the matrix products of one block: q, k, v, o and the three of SwiGLU."""
    return 2 * cfg.dim * cfg.head_dim * (cfg.heads + cfg.kv_heads) + 3 * cfg.dim * cfg.ffn


def parameter_count(cfg: ModelConfig) -> int:
    """Stored parameters: blocks (with two norms each), final norm, and the tied embedding counted once."""
    return cfg.layers * (block_matmul_parameters(cfg) + 2 * cfg.dim) + cfg.dim + embedding_parameters(cfg)


def embedding_parameters(cfg: ModelConfig) -> int:
    """Parameters of the (tied) embedding matrix."""
    return cfg.vocab_size * cfg.dim


def flops_per_token(cfg: ModelConfig, seq_len: int) -> int:
    """Training FLOPs (forward and backward) per token at `seq_len`, the figure MFU is computed from.

    6 per weight of every matrix product, a shared block counted as often as it runs and the output head once (the
    embedding lookup multiplies nothing), plus causal attention: 12 * width * (mean keys per query) per layer, which is
    6 * width * seq_len for a global layer. A local layer's mean is w - w^2 / (2 seq_len) keys once seq_len > w.
    Norms, RoPE, softmax and recomputation are not counted.
    """
    matmul = cfg.layer_repeat * cfg.layers * block_matmul_parameters(cfg) + embedding_parameters(cfg)
    full = seq_len / 2
    window = cfg.sliding_window
    local = full if window is None or seq_len <= window else window - window * window / (2 * seq_len)
    keys = sum(full if cfg.is_global(layer) else local for layer in range(cfg.layers))
    return 6 * matmul + round(12 * cfg.heads * cfg.head_dim * cfg.layer_repeat * keys)


def apply_overrides(cfg: ModelConfig, overrides: ModelOverrides) -> ModelConfig:
    """`cfg` with a recipe's `training.model` settings; raises UserError where one does not fit the size."""
    changes: dict[str, object] = {}
    if overrides.rope_theta is not None:
        changes["rope_theta"] = overrides.rope_theta
    if overrides.qk_norm is not None:
        changes["qk_norm"] = overrides.qk_norm
    if overrides.global_layers is not None:
        where = "training.model.global_layers"
        if cfg.sliding_window is None:
            raise UserError(f"size {cfg.name} has no sliding window", where=where, fix="Remove the key.")
        outside = [layer for layer in overrides.global_layers if not 0 <= layer < cfg.layers]
        if outside:
            raise UserError(f"size {cfg.name} has no layer {outside[0]}", where=where, fix=f"Use 0..{cfg.layers - 1}.")
        changes["global_layers"] = tuple(sorted(set(overrides.global_layers)))
    return dataclasses.replace(cfg, **changes)  # type: ignore[arg-type]


def scaled_down(cfg: ModelConfig) -> ModelConfig:
    """A model with every feature of `cfg` (head grouping, layouts, norms, sharing, windows) that a CPU runs in
    milliseconds: 4 blocks, 2 key/value heads of 16, 512 ids."""
    heads = 2 * cfg.heads // cfg.kv_heads
    dim = 16 * heads
    return dataclasses.replace(
        cfg, name=f"{cfg.name}-scaled", layers=4, heads=heads, kv_heads=2, head_dim=16, dim=dim,
        ffn=8 * round(dim * cfg.ffn / cfg.dim / 8), vocab_size=512, published=None,
        sliding_window=None if cfg.sliding_window is None else 16,
        global_layers=None if cfg.global_layers is None else (0, 3),
    )  # fmt: skip


def model_config(data: dict[str, Any]) -> ModelConfig:
    """ModelConfig from its JSON form."""
    layers = data.get("global_layers")
    return ModelConfig(**{**data, "global_layers": None if layers is None else tuple(layers)})
