"""The chunked loss against plain cross-entropy: values, gradients, ignored targets, memory, and autocast."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.model.decoder import MobileLM
from training.model.losses import IGNORE, cross_entropy
from training.model.shapes import SIZES, scaled_down


def case(tokens: int, ignored: float = 0.3, vocab: int = 97, dim: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, dim, generator=generator)
    weight = torch.randn(vocab, dim, generator=generator)
    targets = torch.randint(vocab, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = IGNORE
    targets[0] = 5
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 70), chunk=st.integers(1, 80))
def test_equals_plain_cross_entropy_and_its_gradients(tokens: int, chunk: int) -> None:
    hidden, weight, targets = case(tokens)
    plain = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE)
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    mean, per_token = cross_entropy(hidden, weight, targets=targets, chunk=chunk)
    actual = torch.autograd.grad(3 * mean, (hidden, weight))
    torch.testing.assert_close(mean, plain)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    losses = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE, reduction="none")
    torch.testing.assert_close(per_token, losses.detach(), atol=1e-5, rtol=1e-5)
    assert not per_token.requires_grad


def test_plain_path_gives_the_same() -> None:
    hidden, weight, targets = case(40)
    plain, plain_tokens = cross_entropy(hidden, weight, targets=targets, chunk=None)
    chunked, tokens = cross_entropy(hidden, weight, targets=targets, chunk=7)
    torch.testing.assert_close(plain, chunked)
    torch.testing.assert_close(plain_tokens, tokens)


@pytest.mark.parametrize("chunk", [None, 4])
def test_no_target_at_all_is_zero_loss_with_zero_gradient(chunk: int | None) -> None:
    hidden, weight, targets = case(10)
    mean, _ = cross_entropy(hidden, weight, targets=torch.full_like(targets, IGNORE), chunk=chunk)
    grads = torch.autograd.grad(mean, (hidden, weight))
    assert mean.item() == 0 and not any(bool(grad.any()) for grad in grads)


def test_no_gradient_is_computed_without_need() -> None:
    hidden, weight, targets = case(10)
    with torch.no_grad():
        mean, _ = cross_entropy(hidden, weight, targets=targets, chunk=4)
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


def test_logits_of_the_whole_batch_never_exist() -> None:
    hidden, weight, targets = case(512, vocab=400, dim=8)
    sizes = []
    for chunk in (32, None):
        with LargestTensor() as largest:
            mean, _ = cross_entropy(hidden, weight, targets=targets, chunk=chunk)
            mean.backward()
        sizes.append(largest.elements)
    assert sizes == [32 * 400, 512 * 400]


def test_bfloat16_autocast_stays_near_float32() -> None:
    hidden, weight, targets = case(64)
    exact, _ = cross_entropy(hidden, weight, targets=targets, chunk=None)
    expected = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean, tokens = cross_entropy(hidden, weight, targets=targets, chunk=16)
    assert mean.dtype == tokens.dtype == torch.float32
    torch.testing.assert_close(mean, exact, atol=0.02, rtol=0.01)
    for one, other in zip(torch.autograd.grad(mean, (hidden, weight)), expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.02 * other.norm()


def test_model_loss_trains_the_tied_embedding_from_both_ends() -> None:
    torch.manual_seed(0)
    model = MobileLM(scaled_down(SIZES["950m"]))
    ids = torch.randint(512, (2, 17))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    grads = []
    for chunk in (None, 5):
        model.zero_grad()
        loss = model.loss(inputs, targets, chunk=chunk)
        loss.backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert len(grads[0]) == len(list(model.parameters()))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    mean, tokens = model(inputs, objective=partial(cross_entropy, targets=targets, chunk=5))
    assert tokens.shape == targets.shape
    torch.testing.assert_close(tokens.mean(), mean)
