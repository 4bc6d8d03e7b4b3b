"""The decoder: pre-norm blocks of grouped-query attention and SwiGLU; ModelConfig selects the family's variations.

Shapes: B sequences, S positions, d model width, V vocabulary. The attention is in training/model/attention.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.model.attention import Attention, Rope, Sight, see
from training.model.losses import cross_entropy
from training.model.memory import CHUNK
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
        self.recompute = False
        """Activation checkpointing: keep the input alone for backward, and compute the rest again there."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, sight: Sight) -> Tensor:
        """(B, S, d) -> (B, S, d)."""
        if self.recompute and torch.is_grad_enabled():
            # Nothing in a block is random. Inside the block, and not around it, so that FSDP2's hooks run once.
            return checkpoint(self._forward, x, cos, sin, sight, use_reentrant=False, preserve_rng_state=False)
        return self._forward(x, cos, sin, sight)

    def _forward(self, x: Tensor, cos: Tensor, sin: Tensor, sight: Sight) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, sight)
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
        self.recomputes = False
        """Whether `recompute_blocks` is on."""
        self.init_weights()

    def init_weights(self) -> None:
        """Draw fresh weights from torch's global generator; needed after `to_empty()` of a model built on meta."""
        self.apply(self.param_init_fn)

    def recompute_blocks(self, on: bool) -> None:
        """Switch activation checkpointing of all blocks: the same bits, less memory, a third more arithmetic."""
        self.recomputes = on
        for layer in self.layers:
            assert isinstance(layer, Block)
            layer.recompute = on

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
        full = see(length, None, doc_ids, ids.device)
        window = self.cfg.sliding_window
        local = full if window is None else see(length, window, doc_ids, ids.device)
        x = self.embed_tokens(ids)
        for index, layer in enumerate(self.layers):
            sight = full if self.cfg.is_global(index) else local
            for _ in range(self.cfg.layer_repeat):
                x = layer(x, cos, sin, sight)
        hidden = self.norm(x)
        return hidden if objective is None else objective(hidden, self.embed_tokens.weight)

    def fsdp_wrap_fn(self, module: nn.Module) -> bool:
        """Whether a module inside is sharded by itself: the blocks, so that one at a time is whole.

        Composer's FSDP2 policy asks this of each child of its model, and shards the child around them.
        """
        return isinstance(module, Block)

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
