"""The learning-rate curve's end points and shape, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus.base.errors import UserError
from corpus.recipe.training import Optimizer, Schedule
from training.run.optimizer import apply_settings, build_optimizer, check_schedule, lr_factor

schedules = st.builds(
    Schedule,
    kind=st.sampled_from(["linear", "cosine"]),
    warmup_steps=st.integers(0, 50),
    final_fraction=st.floats(0, 1),
)


@given(schedules, st.integers(1, 500))
def test_curve_meets_its_end_points_exactly_and_never_leaves_its_range(schedule: Schedule, more: int) -> None:
    steps = schedule.warmup_steps + more
    factors = [lr_factor(schedule, step, steps) for step in range(steps)]
    assert factors[-1] == schedule.final_fraction
    assert all(0 <= factor <= 1 for factor in factors)
    if schedule.warmup_steps:
        assert factors[schedule.warmup_steps - 1] == 1.0
        assert factors[0] == 1 / schedule.warmup_steps
    rise, fall = factors[: schedule.warmup_steps], factors[schedule.warmup_steps :]
    assert rise == sorted(rise) and fall == sorted(fall, reverse=True)


def test_published_curves() -> None:
    """v1: cosine to 10 %, half-way at 55 %; R1: linear to 10 %; mid-training: linear to 0."""
    v1 = Schedule(kind="cosine", warmup_steps=1000, final_fraction=0.1)
    assert lr_factor(v1, 480_000 - 1, 480_000) == 0.1
    assert lr_factor(v1, 1000 + 479_000 // 2 - 1, 480_000) == pytest.approx(0.55)
    r1 = Schedule(kind="linear", warmup_steps=2000, final_fraction=0.1)
    assert lr_factor(r1, 2000 + 498_000 // 2 - 1, 500_000) == pytest.approx(0.55)
    mid = Schedule(kind="linear", warmup_steps=0, final_fraction=0)
    assert lr_factor(mid, 49_999, 50_000) == 0
    assert lr_factor(Schedule(kind="constant", warmup_steps=2, final_fraction=1), 10, 11) == 1


def test_a_curve_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"2000 steps of warm-up do not fit the 100 steps.*warmup_steps=10"):
        check_schedule(Schedule(kind="linear", warmup_steps=2000, final_fraction=0.1), 100, "r.yaml")


def _model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.RMSNorm(3), torch.nn.Linear(3, 2))


def test_embeddings_and_matrices_decay_and_vectors_do_not() -> None:
    model = _model()
    optimizer = build_optimizer(model, Optimizer(lr=0.5), "cpu")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        # With no gradient AdamW only decays, by lr * weight_decay.
        factor = 1 - 0.5 * 0.1 if value.ndim >= 2 else 1
        assert torch.allclose(value, before[name] * factor), name


@pytest.mark.parametrize(("saved", "loaded"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_state_of_another_kind_of_device_brings_no_choice_of_kernel(saved: str, loaded: str) -> None:
    """Fused on a GPU, torch's choice on a CPU, whatever the device that saved; both run on CPU tensors here."""
    model = _model()
    old, new = (build_optimizer(model, Optimizer(lr=0.5), device) for device in (saved, loaded))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    old.step()
    new.load_state_dict(old.state_dict())
    apply_settings(new, Optimizer(lr=0.1))
    own = build_optimizer(_model(), Optimizer(lr=0.1), loaded).param_groups
    for group, expected in zip(new.param_groups, own, strict=True):
        assert {**group, "params": 0} == {**expected, "params": 0}
    new.step()
    assert {float(state["step"]) for state in new.state.values()} == {2.0}


def test_settings_replace_those_of_a_loaded_state() -> None:
    old = build_optimizer(_model(), Optimizer(lr=0.5, betas=(0.5, 0.6)), "cpu")
    new = build_optimizer(_model(), Optimizer(lr=0.1, weight_decay=0.3), "cpu")
    new.load_state_dict(old.state_dict())
    apply_settings(new, Optimizer(lr=0.1, weight_decay=0.3))
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in new.param_groups] == [
        (0.1, (0.9, 0.95), 0.3),
        (0.1, (0.9, 0.95), 0.0),
    ]
