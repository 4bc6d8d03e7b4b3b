"""Grouped-query attention with rotary positions: which keys a query sees, and the product over them.

Shapes: B sequences, S positions, d model width, H query and K key/value heads of width D. `see` says once per batch
what is seen, `attend` is all products over it; memory is in S, not S x S, on CPUs and on GPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model.shapes import ModelConfig

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MASKED = 512
"""Positions up to which a dense mask keeps documents apart: it costs little there, and many small products more."""

BLOCK = 128
"""Edge of flex attention's blocks, its kernels' own default."""


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
    mask = at.unsqueeze(1) >= at
    if window is not None:
        mask &= at.unsqueeze(1) - window < at
    if doc_ids is not None:
        mask = mask & (doc_ids.unsqueeze(2) == doc_ids.unsqueeze(1)).unsqueeze(1)
    return mask


class Documents:
    """Lengths of the documents of all rows, in order.

    Not a dataclass or a list: compiled code would be compiled anew for each content, which it only passes on.
    """

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths


@dataclass(frozen=True)
class Sight:
    """Which keys the queries of a batch see, made once for all layers that see alike, and how that is computed."""

    window: int | None = None
    """Keys a query sees at most, its own included."""
    mask: Tensor | None = None
    """From `attention_mask`: scores are computed for all S x S pairs, and those outside dropped."""
    documents: Documents | None = None
    """One causal product for each."""
    blocks: BlockMask | None = None
    """For flex attention, which passes over blocks of pairs that hold none to be seen."""


def see(length: int, window: int | None, doc_ids: Tensor | None, device: torch.device) -> Sight:
    """What queries see in rows of `length`: keys before them, at most `window`, and only of their document.

    Documents are runs of equal `doc_ids` (B, S). Nothing of S x S elements is made beyond MASKED positions.
    """
    if window is not None and length <= window:
        window = None
    if doc_ids is None:
        return Sight(window)
    if length <= MASKED:
        return Sight(window, mask=attention_mask(length, window, doc_ids, device))
    return _see_documents(window, doc_ids)


# Lengths differ from batch to batch: inside compiled code each would be compiled anew.
@torch.compiler.disable
def _see_documents(window: int | None, doc_ids: Tensor) -> Sight:
    if doc_ids.is_cuda:
        return Sight(window, blocks=block_mask(window, doc_ids))
    return Sight(window, documents=Documents(document_lengths(doc_ids)))


def document_lengths(doc_ids: Tensor) -> list[int]:
    """Lengths of the runs of equal ids of all rows of (B, S), in order; a row's end ends a run."""
    ends = torch.ones_like(doc_ids, dtype=torch.bool)
    ends[:, :-1] = doc_ids[:, 1:] != doc_ids[:, :-1]
    after = ends.flatten().nonzero().squeeze(1) + 1
    return after.diff(prepend=after.new_zeros(1)).tolist()


def block_mask(window: int | None, doc_ids: Tensor) -> BlockMask:
    """Flex attention's table of the blocks of BLOCK x BLOCK pairs that hold any to be seen, from doc_ids (B, S).

    Worked out from where documents begin: torch's own create_block_mask looks at all S x S pairs.
    """
    from torch.nn.attention.flex_attention import BlockMask

    length = doc_ids.shape[1]
    at = torch.arange(length, device=doc_ids.device)
    begins = torch.zeros_like(doc_ids, dtype=torch.int64)
    begins[:, 1:] = torch.where(doc_ids[:, 1:] != doc_ids[:, :-1], at[1:], 0)
    # A query sees the keys from `first` to itself.
    first = begins.cummax(dim=1).values
    if window is not None:
        first = torch.maximum(first, at - window + 1)
    blocks = -(-length // BLOCK)
    # `first` grows along a row, so a block's queries see most with the first of them, and all see what the last does.
    low = first[:, ::BLOCK]
    high = first[:, (torch.arange(1, blocks + 1, device=at.device) * BLOCK - 1).clamp(max=length - 1)]
    index = torch.arange(blocks, device=at.device)
    some = (index <= index.unsqueeze(1)) & ((index + 1) * BLOCK > low.unsqueeze(2))
    whole = (index < index.unsqueeze(1)) & (index * BLOCK >= high.unsqueeze(2))

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= first[b, query])

    def table(chosen: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.argsort(chosen.int(), dim=-1, descending=True, stable=True)
        return chosen.sum(-1).int().unsqueeze(1), order.int().unsqueeze(1)

    return BlockMask.from_kv_blocks(
        *table(some & ~whole), *table(whole), BLOCK_SIZE=BLOCK, mask_mod=seen, seq_lengths=(length, length)
    )


def attend(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """Grouped-query attention over what `sight` lets see: q (B, H, S, D), k and v (B, K, S, D) -> (B, H, S, D).

    The one place where it is decided how. All ways give the same numbers but for the order of sums.
    """
    if sight.blocks is not None:
        return _flex(q, k, v, sight.blocks)
    if sight.documents is not None:
        return _by_document(q, k, v, sight.documents, sight.window)
    if sight.mask is not None:
        return F.scaled_dot_product_attention(q, *_repeated(q, k, v), attn_mask=sight.mask)
    return _causal(q, k, v) if sight.window is None else _by_window(q, k, v, sight.window)


def _repeated(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    repeats = q.shape[1] // k.shape[1]
    return k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Only the CUDA flash kernel groups heads itself; elsewhere the flag selects a kernel that is several times slower
    # than repeating keys and values first. On CPUs, too, this kernel goes by blocks and keeps no S x S scores.
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return F.scaled_dot_product_attention(q, *_repeated(q, k, v), is_causal=True)


def _by_window(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Queries in blocks of `window`, each over its own keys and the block's before: cost and memory in S x window."""
    length = q.shape[2]
    if length <= window:
        return _causal(q, k, v)
    count = -(-length // window)
    # Padded keys come after every query that counts.
    q, k, v = (F.pad(t, (0, 0, 0, count * window - length)).unflatten(2, (count, window)) for t in (q, k, v))
    first = _causal(q[:, :, 0], k[:, :, 0], v[:, :, 0])
    at, key = torch.arange(window, device=q.device), torch.arange(2 * window, device=q.device)
    mask = (key > at.unsqueeze(1)) & (key <= at.unsqueeze(1) + window)
    k, v = (torch.cat((t[:, :, :-1], t[:, :, 1:]), dim=3) for t in (k, v))
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (q[:, :, 1:], k, v))
    others = F.scaled_dot_product_attention(q, *_repeated(q, k, v), attn_mask=mask)
    others = others.unflatten(0, (-1, count - 1)).transpose(1, 2).flatten(2, 3)
    return torch.cat((first, others), dim=2)[:, :, :length]


@torch.compiler.disable
def _by_document(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int | None) -> Tensor:
    """A product for each document. Its numbers do not depend on what else is in the batch."""
    # All rows end to end, then cut: one cut of each tensor, whose backward is one concatenation.
    parts = (t.transpose(1, 2).flatten(0, 1).split(documents.lengths) for t in (q, k, v))
    results = []
    for document in zip(*parts, strict=True):
        one_q, one_k, one_v = (t.transpose(0, 1).unsqueeze(0) for t in document)
        one = _causal(one_q, one_k, one_v) if window is None else _by_window(one_q, one_k, one_v, window)
        results.append(one.squeeze(0).transpose(0, 1))
    return torch.cat(results).unflatten(0, (len(q), -1)).transpose(1, 2)


def _flex(q: Tensor, k: Tensor, v: Tensor, blocks: BlockMask) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    # Uncompiled it would compute all S x S scores.
    run = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    out = run(q, k, v, block_mask=blocks, enable_gqa=True)
    assert isinstance(out, Tensor)
    return out


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, sight: Sight) -> Tensor:
        """(B, S, d) -> (B, S, d)."""
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        q = rotate(self.q_proj(x).unflatten(-1, (-1, self.head_dim)), cos, sin, self.layout)
        k = rotate(self.k_proj(x).unflatten(-1, (-1, self.head_dim)), cos, sin, self.layout)
        if self.qk_norm:
            q = F.rms_norm(q, (self.head_dim,), None, self.eps)
            k = F.rms_norm(k, (self.head_dim,), None, self.eps)
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in (q, k, v))
        return self.o_proj(attend(q, k, v, sight).transpose(1, 2).flatten(2))
