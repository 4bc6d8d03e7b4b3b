"""The distillation loss, computed a chunk of tokens at a time.

    loss = ce_weight * CE + (1 - ce_weight) * T^2 * KL

forward: KL(teacher || student), reverse: KL(student || teacher), both at temperature T. The factor T^2 keeps the size
of the gradient when T changes. As in training/model/losses.py, every chunk adds its gradients during the forward
pass and drops its logits, the teacher's as well as the student's.

With top-k the teacher's k most likely tokens keep their probabilities and all other tokens are merged into one outcome,
in the teacher and in the student alike. Nothing is renormalised, so the student is not taught that the rest of the
vocabulary is impossible; the result never exceeds the KL over the full vocabulary and equals it when k is its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.model.losses import IGNORE, matmul_dtype

CHUNK = 1024
"""Tokens per chunk: 0.8 GB for each of the four or so float32 buffers of a chunk at 202k ids."""

FLOOR = -1e4
"""Log-probability that stands for zero, so that 0 * log 0 is 0."""

LogitsOf = Callable[[slice], Tensor]
"""The teacher's logits (n, V), any float type, of a range of the batch's tokens, numbered row after row."""


@dataclass(frozen=True)
class TopK:
    """A teacher's most likely tokens, N positions."""

    ids: Tensor
    """(N, k) int64, each row without repeats."""
    log_probs: Tensor
    """(N, k + 1) float32 at the temperature of the loss: the k tokens', then that of all other tokens together."""


@dataclass(frozen=True)
class Objective:
    """The settings of the loss; see `corpus.recipe.training.Distillation`."""

    direction: Literal["forward", "reverse"] = "forward"
    temperature: float = 1.0
    ce_weight: float = 0.0
    top_k: int | None = None


@dataclass(frozen=True)
class Distiller:
    """A teacher and how to learn from it."""

    teacher: Callable[[Mapping[str, Tensor]], LogitsOf | TopK]
    """What the teacher says of a batch."""
    objective: Objective


def top_k_of(logits: Tensor, k: int, temperature: float) -> TopK:
    """The k most likely tokens of logits (n, V), most likely first; k is at most V."""
    log_probs = F.log_softmax(logits.float() / temperature, dim=-1)
    values, ids = log_probs.topk(k)
    rest = log_probs.scatter_(1, ids, -torch.inf).logsumexp(1, keepdim=True)
    return TopK(ids, torch.cat((values, rest), dim=1).clamp_(min=FLOOR))


@torch.compiler.disable
def distillation_loss(
    hidden: Tensor, weight: Tensor, *, targets: Tensor, teacher: LogitsOf | TopK, objective: Objective,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Mean distillation loss of `hidden @ weight.T`, over the targets that count (0 when none does).

    hidden (..., d), weight (V, d), targets (...) int64 with IGNORE where there is no loss of either kind. Returns the
    mean and, without gradient, (...) float32 each and 0 where ignored: the cross-entropy at temperature 1, and the KL
    term, its factor T^2 included. `chunk` is the number of tokens whose logits exist at once.
    """
    mean, ce, kd = _Chunked.apply(
        hidden.flatten(0, -2), weight, targets.flatten(), teacher, objective, chunk, torch.is_grad_enabled()
    )
    return mean, ce.view(targets.shape), kd.view(targets.shape)


class _Chunked(torch.autograd.Function):
    """(hidden (N, d), weight (V, d), targets (N), ...) -> (mean, cross-entropies (N), KL terms (N))."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, teacher: LogitsOf | TopK, objective: Objective,
        chunk: int, with_grad: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        dtype = matmul_dtype(weight)
        valid = targets != IGNORE
        index = targets.where(valid, 0).unsqueeze(1)
        count = valid.sum().clamp(min=1)
        ce, kd = (torch.empty(len(targets), dtype=torch.float32, device=hidden.device) for _ in range(2))
        grad_hidden = torch.empty_like(hidden) if with_grad else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if with_grad else None
        with torch.autocast(hidden.device.type, enabled=False):
            states, head = hidden.to(dtype), weight.to(dtype)
            for start in range(0, len(targets), chunk):
                part = slice(start, min(start + chunk, len(targets)))
                logits = (states[part] @ head.T).float()
                token_ce, token_kd, grad_logits = _terms(logits, index[part], _of(teacher, part, objective), objective)
                ce[part], kd[part] = token_ce * valid[part], token_kd * valid[part]
                if grad_hidden is None or grad_weight is None:
                    continue
                # The factor goes onto the narrow (tokens, d) operands instead of the (tokens, V) one.
                grad_logits = grad_logits.to(dtype)
                scale = (valid[part] / count).unsqueeze(1)
                grad_hidden[part] = (grad_logits @ head) * scale
                grad_weight += grad_logits.T @ (states[part] * scale).to(dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(ce, kd)
        return (objective.ce_weight * ce.sum() + (1 - objective.ce_weight) * kd.sum()) / count, ce, kd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], (grad_weight * grads[0]).to(ctx.weight_dtype), *(None,) * 5


def _of(teacher: LogitsOf | TopK, part: slice, objective: Objective) -> Tensor | TopK:
    """What the teacher says of a chunk: log-probabilities (n, V), or its top k."""
    if isinstance(teacher, TopK):
        return TopK(teacher.ids[part], teacher.log_probs[part])
    logits = teacher(part)
    if objective.top_k is not None:
        return top_k_of(logits, objective.top_k, objective.temperature)
    return F.log_softmax(logits.float() / objective.temperature, dim=-1).clamp_(min=FLOOR)


def _terms(
    logits: Tensor, index: Tensor, teacher: Tensor | TopK, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy (n), KL term (n) and the whole loss's gradient (n, V) for the student's logits (n, V) float32."""
    temperature, weight = objective.temperature, objective.ce_weight
    log_q1 = F.log_softmax(logits, dim=-1)
    picked = log_q1.gather(1, index)
    log_q = log_q1 if temperature == 1 else F.log_softmax(logits / temperature, dim=-1)
    q1 = log_q1.exp() if weight else None
    # Either may use up log_q.
    if isinstance(teacher, TopK):
        kl, grad = _top_k(log_q, teacher, objective.direction)
    else:
        kl, grad = _full(log_q, teacher, objective.direction)
    grad *= (1 - weight) * temperature
    if q1 is not None:
        q1.scatter_(1, index, picked.exp() - 1)
        grad.add_(q1, alpha=weight)
    return -picked.squeeze(1), kl * temperature**2, grad


def _full(log_q: Tensor, log_p: Tensor, direction: str) -> tuple[Tensor, Tensor]:
    """KL (n) and its gradient (n, V) with respect to the logits that log_q (n, V) is the log-softmax of."""
    if direction == "forward":
        ratio = log_p - log_q
        p = log_p.exp_()
        return ratio.mul_(p).sum(1), log_q.exp_().sub_(p)
    ratio = log_q - log_p
    q = log_q.exp_()
    kl = (q * ratio).sum(1)
    return kl, ratio.sub_(kl.unsqueeze(1)).mul_(q)


def _top_k(log_q: Tensor, teacher: TopK, direction: str) -> tuple[Tensor, Tensor]:
    """As `_full`, over k + 1 outcomes; every token of the tail has its share of the tail's gradient."""
    kept = log_q.gather(1, teacher.ids)
    log_q.scatter_(1, teacher.ids, -torch.inf)
    tail = log_q.logsumexp(1, keepdim=True)
    student, log_p = torch.cat((kept, tail), dim=1).clamp_(min=FLOOR), teacher.log_probs
    if direction == "forward":
        p, ratio = log_p.exp(), log_p - student
        kl, kept_grad = (p * ratio).sum(1), (student.exp() - p)[:, :-1]
        # At 80 the student's tail has underflowed, and with it the probabilities that this multiplies.
        factor = 1 - ratio[:, -1:].clamp(max=80).exp()
    else:
        q, ratio = student.exp(), student - log_p
        kl = (q * ratio).sum(1)
        excess = ratio - kl.unsqueeze(1)
        kept_grad, factor = (q * excess)[:, :-1], excess[:, -1:]
    return kl, log_q.exp_().mul_(factor).scatter_(1, teacher.ids, kept_grad)
