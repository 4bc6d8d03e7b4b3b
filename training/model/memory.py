"""What training takes of a device's memory, worked out from a model's shape; without torch.

For eager code: torch.compile keeps less. The tests hold the bytes per token against what autograd keeps.
"""

from __future__ import annotations

from training.model.shapes import ModelConfig, block_matmul_parameters, embedding_parameters, parameter_count

CHUNK = 4096
"""Tokens whose logits exist at once: 2.1 GB in float32 at 128k ids, and enough to keep a GPU's matrix units busy."""

STATE_BYTES = 16
"""Per parameter, float32: weight, gradient (in the buckets that DDP reduces) and the two moments of Adam."""

USABLE = 0.92
"""Share of a device's memory that can be planned with; the rest is the CUDA context, workspaces and fragments."""


def layer_bytes(cfg: ModelConfig, layer: int, seq_len: int, *, bf16: bool, cuda: bool) -> int:
    """Bytes per token that one run of block `layer` keeps for backward, under bf16 autocast or in float32."""
    word = 2 if bf16 else 4
    width, kv_width = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    # The residual stream is float32: each norm keeps its input, and that times its root mean square.
    norms = 4 * (4 * cfg.dim + 2)
    # Autocast makes a bf16 copy for each product anew: q, k, v, gate and up.
    inputs = 5 * 2 * cfg.dim if bf16 else 2 * 4 * cfg.dim
    feed_forward = word * 4 * cfg.ffn
    windowed = not cfg.is_global(layer) and cfg.sliding_window is not None and seq_len > cfg.sliding_window
    # Keys and values: one per group where the kernel groups heads itself, else one per head; twice by windows.
    keys = width * (2 if windowed else 1) if windowed or not cuda or not bf16 else kv_width
    # Blocks of a window are put together to one output.
    outputs = width * (2 if windowed else 1)
    attention = word * (width + outputs + 2 * keys) + 4 * cfg.heads
    qk_norm = 4 * (width + kv_width + cfg.heads + cfg.kv_heads) if cfg.qk_norm else 0
    return norms + inputs + feed_forward + attention + qk_norm


def sequence_bytes(cfg: ModelConfig, seq_len: int, *, recompute: bool, bf16: bool = True, cuda: bool = True) -> int:
    """Bytes of activations that each sequence of a microbatch takes at the peak, which is in backward.

    With `recompute` a block keeps its input, and one block at a time the rest. What backward makes of the block that it
    is at is taken to be as much again as that block kept.
    """
    layers = [layer_bytes(cfg, layer, seq_len, bf16=bf16, cuda=cuda) for layer in range(cfg.layers)]
    kept = cfg.layer_repeat * (4 * cfg.dim * cfg.layers if recompute else sum(layers))
    at_work = max(layers) * (2 if recompute else 1)
    # The last norm (two), its output, that in the products' type, and its gradient.
    head = 5 * 4 * cfg.dim
    return seq_len * (kept + at_work + head)


def fixed_bytes(cfg: ModelConfig, tokens: int, *, shards: int = 1, bf16: bool = True) -> int:
    """Bytes that do not grow with the microbatch of `tokens` tokens (beyond CHUNK).

    State; bf16 copies of the weights; logits of a chunk with their gradient, and the head's gradient twice. With
    `shards` > 1 also one process's whole gradients, which microbatches add up in before they are reduced, and the
    embedding and two blocks whole.
    """
    parameters, head = parameter_count(cfg), embedding_parameters(cfg)
    state = STATE_BYTES * parameters // shards
    whole = 0 if shards == 1 else 4 * (parameters + head + 2 * block_matmul_parameters(cfg))
    copies = 2 * parameters if bf16 else 0
    logits = min(CHUNK, tokens) * cfg.vocab_size * (8 if bf16 else 4)
    return state + whole + copies + logits + 2 * 4 * head


def peak_bytes(
    cfg: ModelConfig, seq_len: int, sequences: int, *, recompute: bool, shards: int = 1, bf16: bool = True
) -> int:
    """Bytes of a CUDA device at the peak of a step, for a microbatch of `sequences`."""
    fixed = fixed_bytes(cfg, sequences * seq_len, shards=shards, bf16=bf16)
    return fixed + sequences * sequence_bytes(cfg, seq_len, recompute=recompute, bf16=bf16)


def largest_microbatch(
    cfg: ModelConfig,
    seq_len: int,
    per_device: int,
    memory: float,
    *,
    recompute: bool,
    shards: int = 1,
    bf16: bool = True,
) -> int:
    """Most sequences of which a device with `memory` bytes holds a pass; 0 when not even one.

    A divisor of `per_device`, so that all passes of a step are alike.
    """
    return max(
        (
            size
            for size in range(1, per_device + 1)
            if per_device % size == 0
            and peak_bytes(cfg, seq_len, size, recompute=recompute, shards=shards, bf16=bf16) <= USABLE * memory
        ),
        default=0,
    )


def needs_recompute(cfg: ModelConfig, seq_len: int, memory: float, *, shards: int = 1, bf16: bool = True) -> bool:
    """Whether one sequence fits into `memory` bytes only if blocks are computed again in backward.

    Where neither fits, too: what is left then is the better attempt. Nothing else is weighed: a larger microbatch is
    not worth a third more arithmetic.
    """
    return largest_microbatch(cfg, seq_len, 1, memory, recompute=False, shards=shards, bf16=bf16) == 0
