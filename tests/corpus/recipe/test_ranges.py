"""What a recipe may say is checked when it is read, against what every later stage can do."""

from __future__ import annotations

from typing import Any

import pytest

from corpus.base.config import parse
from corpus.base.errors import UserError
from corpus.recipe.model import Recipe
from tests.conftest import recipe_dict


def recipe(key: str, value: Any) -> Recipe:
    """A recipe of 20 steps with one key of it changed."""
    data: dict[str, Any] = recipe_dict({"a": ["a.jsonl"]})
    level = data
    *path, last = key.split(".")
    for part in path:
        level = level.setdefault(part, {})
    level[last] = value
    return parse(Recipe, data, "r.yaml")


@pytest.mark.parametrize(
    ("key", "bad", "says"),
    [
        ("seed", 2**32, "key 'seed'.*4294967295"),
        ("seed", 20261125123456, "key 'seed'.*4294967295"),
        ("seed", -1, "key 'seed'"),
        ("training.schedule.warmup_steps", 20, "warmup_steps.*20 steps of warm-up.*at most 19"),
        ("training.canonical_nodes", 3, "canonical_nodes 3 does not divide global_batch 4"),
        ("training.optimizer.betas", [0.9, 1.0], "betas.1'.*less than 1"),
        ("training.optimizer.betas", [-0.1, 0.9], "betas.0'"),
        ("training.optimizer.lr", 1e39, "optimizer.lr'"),
        ("training.optimizer.eps", 1e-60, "optimizer.eps'"),
        ("training.optimizer.weight_decay", 1e39, "weight_decay'"),
        ("training.model.rope_theta", 1e39, "rope_theta'"),
        ("training.model.global_layers", [-1], "global_layers.0'"),
        ("training.schedule", {"kind": "constant", "warmup_steps": 0, "final_fraction": 0.1}, "constant schedule"),
    ],
)
def test_values_that_no_trainer_could_use_are_refused_by_name(key: str, bad: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        recipe(key, bad)


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("seed", 2**32 - 1),
        ("seed", 0),
        ("training.schedule.warmup_steps", 19),
        ("training.canonical_nodes", 4),
        ("training.optimizer.betas", [0, 0.999999]),
    ],
)
def test_the_ends_of_the_ranges_are_accepted(key: str, good: Any) -> None:
    assert recipe(key, good)
