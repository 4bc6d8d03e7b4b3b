"""Next-token cross-entropy computed a chunk of tokens at a time.

With 128k or 202k ids the float32 logits of one batch outweigh the model: 32,768 tokens of 950m would need 16.8 GB, and
as much again for their gradient. The gradient of cross-entropy with respect to the logits is known as soon as they are,
so each chunk adds its share of both gradients during the forward pass and its logits are dropped; nothing is computed
twice, and only the hidden states' and the head's gradients (which backward needs anyway) are kept.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.model.memory import CHUNK

IGNORE = -100
"""Target of a position that has no loss."""


@torch.compiler.disable
def cross_entropy(
    hidden: Tensor, weight: Tensor, *, targets: Tensor, chunk: int | None = CHUNK
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of `hidden @ weight.T` against `targets`, softmax in float32.

    hidden (..., d), weight (V, d), targets (...) int64 with IGNORE where there is no loss. Returns the mean over the
    targets that count (0 when none does) and, without gradient, the loss of every position (..., float32, 0 where
    ignored). `chunk` is the number of tokens whose logits exist at once; None computes them all through autograd.
    """
    flat, flat_targets = hidden.flatten(0, -2), targets.flatten()
    if chunk is None:
        tokens = F.cross_entropy(F.linear(flat, weight).float(), flat_targets, ignore_index=IGNORE, reduction="none")
        mean = tokens.sum() / (flat_targets != IGNORE).sum().clamp(min=1)
    else:
        mean, tokens = _Chunked.apply(flat, weight, flat_targets, chunk, torch.is_grad_enabled())
    return mean, tokens.detach().view(targets.shape)


def matmul_dtype(weight: Tensor) -> torch.dtype:
    """The type that logits are multiplied in: autocast's where it is on, else the head's."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class _Chunked(torch.autograd.Function):
    """(hidden (N, d), weight (V, d), targets (N), chunk, with_grad) -> (mean, per-token losses (N))."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, with_grad: bool
    ) -> tuple[Tensor, Tensor]:
        dtype = matmul_dtype(weight)
        valid = targets != IGNORE
        index = targets.where(valid, 0).unsqueeze(1)
        count = valid.sum().clamp(min=1)
        tokens = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if with_grad else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if with_grad else None
        with torch.autocast(hidden.device.type, enabled=False):
            states, head = hidden.to(dtype), weight.to(dtype)
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                log_probs = F.log_softmax(states[part] @ head.T, dim=-1, dtype=torch.float32)
                picked = log_probs.gather(1, index[part])
                tokens[part] = -picked.squeeze(1) * valid[part]
                if grad_hidden is None or grad_weight is None:
                    continue
                # d loss / d logits = (softmax - one-hot) / count. The factor goes onto the narrow (tokens, d) operands
                # instead of the (tokens, V) one, which is written once, in the type the products are computed in.
                if dtype == torch.float32:
                    grad_logits = log_probs.exp_()
                else:
                    grad_logits = torch.exp(log_probs, out=torch.empty_like(log_probs, dtype=dtype))
                grad_logits.scatter_(1, index[part], (picked.exp() - 1).to(dtype))
                scale = (valid[part] / count).unsqueeze(1)
                grad_hidden[part] = (grad_logits @ head) * scale
                scaled = (states[part] * scale).to(dtype)
                if dtype == torch.float32:
                    grad_weight.addmm_(grad_logits.T, scaled)
                else:
                    grad_weight += grad_logits.T @ scaled
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(tokens)
        return tokens.sum() / count, tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], (grad_weight * grads[0]).to(ctx.weight_dtype), None, None, None
