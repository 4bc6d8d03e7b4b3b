"""The decoder: pre-norm blocks of grouped-query attention and SwiGLU; ModelConfig selects the family's variations.

Shapes: B sequences, S positions, d model width, H query and K key/value heads of width D, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model.losses import CHUNK, cross_entropy
from training.model.shapes import ModelConfig

INIT_STD = 0.02
"""Standard deviation of every weight matrix at the start."""

T = TypeVar("T")


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim) in x's dtype."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


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


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(cfg.dim, cfg.ffn, bias=False)
        self.up_proj = nn.Linear(cfg.dim, cfg.ffn, bias=False)
        self.down_proj = nn.Linear(cfg.ffn, cfg.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, d) -> (B, S, d)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.self_attn = Attention(cfg)
        self.post_attention_layernorm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.mlp = FeedForward(cfg)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, d) -> (B, S, d)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class MobileLM(nn.Module):
    """A model of the family. State-dict names are those of the common decoder layout, without a prefix."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.dim)
        self.layers = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.rope = Rope(cfg.head_dim, cfg.rope_theta, cfg.max_positions)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw fresh weights from torch's global generator; needed after `to_empty()` of a model built on meta."""
        self.apply(self.param_init_fn)

    @staticmethod
    @torch.no_grad()
    def param_init_fn(module: nn.Module) -> None:
        """Initialise the parameters and tables that `module` itself holds, not its children's."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=INIT_STD)
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Rope):
            module.reset_parameters()

    @overload
    def forward(self, ids: Tensor, doc_ids: Tensor | None = ..., positions: Tensor | None = ...) -> Tensor: ...

    @overload
    def forward(
        self,
        ids: Tensor,
        doc_ids: Tensor | None = ...,
        positions: Tensor | None = ...,
        *,
        objective: Callable[[Tensor, Tensor], T],
    ) -> T: ...

    def forward(
        self,
        ids: Tensor,
        doc_ids: Tensor | None = None,
        positions: Tensor | None = None,
        *,
        objective: Callable[[Tensor, Tensor], Any] | None = None,
    ) -> Any:
        """Hidden states after the final norm (B, S, d) for ids (B, S) int64.

        `doc_ids` (B, S) keeps attention between positions of equal id; `positions` (B, S) replaces 0..S-1.
        With `objective`, returns objective(hidden, head weight (V, d)) instead: losses that need the output head must
        run inside forward, because sharded training (FSDP) has the weight whole only there.
        Raises ValueError when S exceeds the size's `max_positions`.
        """
        length = ids.shape[1]
        if length > self.cfg.max_positions:
            raise ValueError(f"{length} positions exceed max_positions {self.cfg.max_positions} of {self.cfg.name}")
        cos, sin = self.rope(length, positions)
        full = attention_mask(length, None, doc_ids, ids.device)
        local = (
            full
            if self.cfg.sliding_window is None
            else attention_mask(length, self.cfg.sliding_window, doc_ids, ids.device)
        )
        x = self.embed_tokens(ids)
        for index, layer in enumerate(self.layers):
            mask = full if self.cfg.is_global(index) else local
            for _ in range(self.cfg.layer_repeat):
                x = layer(x, cos, sin, mask)
        hidden = self.norm(x)
        return hidden if objective is None else objective(hidden, self.embed_tokens.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., d) -> (..., V) through the tied embedding. Not for sharded training: see `forward`."""
        return F.linear(hidden, self.embed_tokens.weight)

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        doc_ids: Tensor | None = None,
        positions: Tensor | None = None,
        chunk: int | None = CHUNK,
    ) -> Tensor:
        """Mean cross-entropy of targets (B, S), already shifted, IGNORE where there is none; see `cross_entropy`."""
        mean, _ = self(ids, doc_ids, positions, objective=partial(cross_entropy, targets=targets, chunk=chunk))
        return mean
