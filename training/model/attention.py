"""Grouped-query attention with rotary positions: which keys a query sees, and the product over them.

Shapes: B sequences, S positions, d model width, H query and K key/value heads of width D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model.shapes import ModelConfig


class Rope(nn.Module):
    """Tables of rotary angles: cos and sin (max_positions, D/2), float32, rebuilt instead of saved."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, theta: float, max_positions: int) -> None:
        super().__init__()
        self.head_dim, self.theta, self.max_positions = head_dim, theta, max_positions
        empty = torch.empty(max_positions, head_dim // 2)
        self.register_buffer("cos", empty, persistent=False)
        self.register_buffer("sin", torch.empty_like(empty), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the tables on the device they are on (nothing on meta)."""
        device = self.cos.device
        if device.type == "meta":
            return
        # On the CPU whatever the device: pow differs in the last bit between devices, and angles grow with position.
        exponents = torch.arange(0, self.head_dim, 2, device="cpu", dtype=torch.float32) / self.head_dim
        positions = torch.arange(self.max_positions, device="cpu", dtype=torch.float32)
        angles = torch.outer(positions, 1.0 / self.theta**exponents)
        self.cos, self.sin = angles.cos().to(device), angles.sin().to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rope:
        # Every move or cast goes through here: tables stay float32 under .to(bfloat16) and are filled after to_empty().
        super()._apply(fn, recurse)
        self.reset_parameters()
        return self

    def forward(self, length: int, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """cos and sin for positions 0..length-1, (S, 1, D/2), or for `positions` (B, S), (B, S, 1, D/2)."""
        at: slice | Tensor = slice(length) if positions is None else positions
        return self.cos[at].unsqueeze(-2), self.sin[at].unsqueeze(-2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
    """Turn the pairs of each head of x (B, S, heads, D) by the angles; float32 whatever x is."""
    x = x.float()
    if layout == "half":
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)


def attention_mask(length: int, window: int | None, doc_ids: Tensor | None, device: torch.device) -> Tensor | None:
    """Boolean mask, True where a query (row) may see a key (column): (S, S), or (B, 1, S, S) with documents.

    Causal; at most the last `window` keys, the query's own included; only keys of the same document. None when that is
    plain causal attention, for which kernels need no mask.
    """
    if window is not None and length <= window:
        window = None
    if window is None and doc_ids is None:
        return None
    at = torch.arange(length, device=device)
    distance = at.unsqueeze(1) - at
    mask = distance >= 0
    if window is not None:
        mask &= distance < window
    if doc_ids is not None:
        mask = mask & (doc_ids.unsqueeze(2) == doc_ids.unsqueeze(1)).unsqueeze(1)
    return mask


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Causal grouped-query attention: q (B, H, S, D), k and v (B, K, S, D) -> (B, H, S, D)."""
    # Only the CUDA flash kernel groups heads itself; elsewhere the flag selects a kernel that is several times slower
    # than repeating keys and values first.
    grouped = mask is None and q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)
    if grouped:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)


class Attention(nn.Module):
    """Grouped-query attention with RoPE and, where the size has it, QK-norm."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.head_dim, self.layout, self.eps = cfg.head_dim, cfg.rope_layout, cfg.norm_eps
        self.qk_norm = cfg.qk_norm
        self.q_proj = nn.Linear(cfg.dim, cfg.heads * cfg.head_dim, bias=False)
        self.k_proj = nn.Linear(cfg.dim, cfg.kv_heads * cfg.head_dim, bias=False)
        self.v_proj = nn.Linear(cfg.dim, cfg.kv_heads * cfg.head_dim, bias=False)
        self.o_proj = nn.Linear(cfg.heads * cfg.head_dim, cfg.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, d) -> (B, S, d)."""
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        q = rotate(self.q_proj(x).unflatten(-1, (-1, self.head_dim)), cos, sin, self.layout)
        k = rotate(self.k_proj(x).unflatten(-1, (-1, self.head_dim)), cos, sin, self.layout)
        if self.qk_norm:
            q = F.rms_norm(q, (self.head_dim,), None, self.eps)
            k = F.rms_norm(k, (self.head_dim,), None, self.eps)
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in (q, k, v))
        return self.o_proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))
