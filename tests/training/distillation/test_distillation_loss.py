"""The chunked distillation loss against a plain one: values, gradients, ignored targets, top-k, memory, autocast."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.distillation.loss import Objective, TopK, distillation_loss, top_k_of
from training.model.losses import IGNORE, cross_entropy

VOCAB, DIM = 53, 12

objectives = st.builds(
    Objective,
    direction=st.sampled_from(["forward", "reverse"]),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
    ce_weight=st.sampled_from([0.0, 0.3, 1.0]),
    top_k=st.sampled_from([None, 1, 5, VOCAB - 1, VOCAB]),
)


def case(tokens: int, vocab: int = VOCAB, ignored: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, targets, teacher logits."""
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, DIM, generator=generator)
    weight = torch.randn(vocab, DIM, generator=generator)
    targets = torch.randint(vocab, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = IGNORE
    targets[0] = 5
    return (
        hidden.requires_grad_(),
        weight.requires_grad_(),
        targets,
        3 * torch.randn(tokens, vocab, generator=generator),
    )


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, teacher: Tensor, objective: Objective) -> Tensor:
    """The definition, with all logits at once and autograd."""
    logits = hidden @ weight.T
    q, p = (F.softmax(each.double() / objective.temperature, dim=-1) for each in (logits, teacher))
    if objective.top_k not in (None, VOCAB):
        assert objective.top_k
        best = p.topk(objective.top_k).indices
        rest = torch.ones_like(p).scatter(1, best, 0.0)
        q, p = (torch.cat((each.gather(1, best), (each * rest).sum(1, keepdim=True)), 1) for each in (q, p))
    if objective.direction == "reverse":
        p, q = q, p
    kl = (p * (p.log() - q.log())).sum(1)
    ce = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")
    tokens = objective.ce_weight * ce + (1 - objective.ce_weight) * objective.temperature**2 * kl
    valid = targets != IGNORE
    return (tokens * valid).sum() / valid.sum()


@settings(max_examples=120, deadline=None)
@given(tokens=st.integers(1, 40), chunk=st.integers(1, 50), objective=objectives)
def test_equals_the_definition_and_its_gradients(tokens: int, chunk: int, objective: Objective) -> None:
    hidden, weight, targets, teacher = case(tokens)
    reference = plain(hidden, weight, targets, teacher, objective)
    expected = torch.autograd.grad(3 * reference, (hidden, weight))
    mean, ce, kd = distillation_loss(
        hidden, weight, targets=targets, teacher=teacher.__getitem__, objective=objective, chunk=chunk
    )
    torch.testing.assert_close(mean, reference.float(), atol=1e-5, rtol=1e-4)
    for one, other in zip(torch.autograd.grad(3 * mean, (hidden, weight)), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    _, tokens_ce = cross_entropy(hidden, weight, targets=targets)
    torch.testing.assert_close(ce, tokens_ce, atol=1e-5, rtol=1e-5)
    assert not ce.requires_grad and not kd.requires_grad
    assert not kd[targets == IGNORE].any()
    weighted = objective.ce_weight * ce + (1 - objective.ce_weight) * kd
    torch.testing.assert_close(weighted.sum() / (targets != IGNORE).sum(), mean)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(1, 20), objective=objectives.filter(lambda each: each.top_k is not None))
def test_a_stored_top_k_equals_the_teacher_it_comes_from(tokens: int, objective: Objective) -> None:
    hidden, weight, targets, teacher = case(tokens)
    assert objective.top_k
    stored = top_k_of(teacher, objective.top_k, objective.temperature)
    torch.testing.assert_close(stored.log_probs.exp().sum(1), torch.ones(tokens))
    results = [
        distillation_loss(hidden, weight, targets=targets, teacher=each, objective=objective, chunk=7)
        for each in (stored, teacher.__getitem__)
    ]
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][2], results[1][2])


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(1, 20), k=st.integers(1, VOCAB - 1), direction=st.sampled_from(["forward", "reverse"]))
def test_top_k_never_exceeds_the_full_divergence_and_is_zero_for_the_teacher_itself(
    tokens: int, k: int, direction: str
) -> None:
    hidden, weight, targets, teacher = case(tokens, ignored=0)
    values = []
    for top_k in (k, None):
        objective = Objective(direction, top_k=top_k)  # type: ignore[arg-type]
        kd = distillation_loss(hidden, weight, targets=targets, teacher=teacher.__getitem__, objective=objective)[2]
        values.append(kd)
        own = (hidden @ weight.T).detach()
        mean, _, same = distillation_loss(hidden, weight, targets=targets, teacher=own.__getitem__, objective=objective)
        torch.testing.assert_close(same, torch.zeros(tokens), atol=1e-5, rtol=0)
        assert all(grad.abs().max() < 1e-4 for grad in torch.autograd.grad(mean, (hidden, weight)))
    assert bool((values[0] <= values[1] + 1e-4).all())


@pytest.mark.parametrize("top_k", [None, 3])
def test_ids_that_a_teacher_rules_out_and_certain_teachers_give_finite_numbers(top_k: int | None) -> None:
    hidden, weight, targets, teacher = case(6)
    teacher[:, 20:] = -torch.inf
    teacher[0] = -torch.inf
    teacher[0, 7] = 0.0
    for direction in ("forward", "reverse"):
        objective = Objective(direction, top_k=top_k)  # type: ignore[arg-type]
        mean, _, _ = distillation_loss(
            hidden, weight, targets=targets, teacher=teacher.__getitem__, objective=objective
        )
        assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(mean, (hidden, weight)))


def test_no_target_at_all_is_zero_loss_with_zero_gradient() -> None:
    hidden, weight, targets, teacher = case(10)
    mean, _, _ = distillation_loss(
        hidden, weight, targets=torch.full_like(targets, IGNORE), teacher=teacher.__getitem__, objective=Objective()
    )
    assert mean.item() == 0 and not any(bool(grad.any()) for grad in torch.autograd.grad(mean, (hidden, weight)))


def test_nothing_is_kept_for_backward_without_need() -> None:
    hidden, weight, targets, teacher = case(10)
    with torch.no_grad():
        mean, _, _ = distillation_loss(
            hidden, weight, targets=targets, teacher=teacher.__getitem__, objective=Objective()
        )
    assert not mean.requires_grad


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the most elements any operation's result had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return result


@pytest.mark.parametrize("objective", [Objective(), Objective("reverse", 2.0, 0.5, 4)])
def test_neither_models_logits_exist_for_the_whole_batch(objective: Objective) -> None:
    hidden, weight, targets, _ = case(512, vocab=400)
    states, head = torch.randn(512, 6), torch.randn(400, 6)
    with LargestTensor() as largest:
        mean, _, _ = distillation_loss(
            hidden, weight, targets=targets, teacher=lambda part: states[part] @ head.T, objective=objective, chunk=32
        )
        mean.backward()
    assert largest.elements == 32 * 400


def test_bfloat16_autocast_stays_near_float32() -> None:
    hidden, weight, targets, teacher = case(64)

    def run() -> tuple[Tensor, ...]:
        objective = Objective(ce_weight=0.3)
        mean, _, _ = distillation_loss(
            hidden, weight, targets=targets, teacher=teacher.__getitem__, objective=objective, chunk=16
        )
        return mean, *torch.autograd.grad(mean, (hidden, weight))

    exact = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = run()
    assert {each.dtype for each in rough} == {torch.float32}
    assert all((one - other).norm() < 0.03 * other.norm() for one, other in zip(rough, exact, strict=True))


def test_top_k_rows_belong_together() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    top = top_k_of(logits, 2, 1.0)
    assert isinstance(top, TopK) and top.ids.tolist() == [[1, 3]]
    p = torch.softmax(logits, -1)[0]
    torch.testing.assert_close(top.log_probs.exp()[0], torch.stack((p[1], p[3], p[0] + p[2])))
