"""What a model card says of the training: what the run did."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.elastic import fingerprint_fields
from training.data.mixture import plan_epochs
from training.hf.history import drawn, shown


def fields(mixture: list[tuple[str, float]], total: int, batch: int = 10, virtual: int = 40, seq_len: int = 8) -> dict:  # type: ignore[type-arg]
    return fingerprint_fields(
        manifest="m",
        mixture=mixture,
        seed=1,
        seq_len=seq_len,
        global_batch=batch,
        canonical_nodes=1,
        total_steps=total,
        virtual_epoch_samples=virtual,
    )


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 30), st.integers(1, 8), st.integers(1, 60),
    st.data(),
)  # fmt: skip
def test_draws_add_up_to_the_samples_of_the_steps(
    weights: list[int], total: int, batch: int, virtual: int, data: st.DataObject
) -> None:
    steps = data.draw(st.integers(0, total))
    mixture = [(f"s{number}", float(weight)) for number, weight in enumerate(weights)]
    found = drawn(fields(mixture, total, batch, virtual), [], steps)
    assert sum(each.samples for each in found.values()) == pytest.approx(steps * batch)
    assert sum(each.tokens for each in found.values()) == pytest.approx(steps * batch * 8)
    plan = plan_epochs([weight for _, weight in mixture], total, batch, virtual)
    if steps in plan.step_ends:
        assert all(each.exact and each.samples == int(each.samples) for each in found.values())


def test_inside_a_virtual_epoch_a_share_is_about_what_was_drawn() -> None:
    found = drawn(fields([("a", 0.75), ("b", 0.25)], total=8), [], 2)
    assert (found["a"].samples, found["b"].samples) == (15.0, 5.0)
    assert not found["a"].exact and not found["b"].exact
    assert drawn(fields([("a", 1.0)], total=8), [], 2)["a"].exact


def test_data_that_changed_under_way_counts_as_it_was_then() -> None:
    """8 steps on a and b, 4 of batch 5 on a alone, then 4 on c."""
    last = fields([("c", 1.0)], total=100, batch=5)
    changes = [
        {"step": 8, "changed": {"mixture": [[["a", 0.5], ["b", 0.5]], [["a", 1.0]]], "global_batch": [10, 5]}},
        {"step": 12, "changed": {"mixture": [[["a", 1.0]], [["c", 1.0]]]}},
    ]
    found = drawn(last, changes, 16)
    assert {name: each.samples for name, each in found.items()} == {"a": 40 + 20, "b": 40, "c": 20}
    assert all(each.exact for each in found.values())


@pytest.mark.parametrize(
    ("name", "result"),
    [("someone/teacher-8b", "someone/teacher-8b"), ("/home/me/teacher", "teacher"), ("../w/x.bin", "x.bin")],
)
def test_paths_of_this_machine_stay_out_of_the_card(name: str, result: str) -> None:
    assert shown(name) == result
