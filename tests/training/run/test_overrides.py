"""`--set`: what it reaches."""

from __future__ import annotations

from corpus.recipe.model import Recipe
from tests.training.trainer_kit import STEP_TOKENS, recipe_dict
from training.run.overrides import override


def test_overrides_reach_every_hyperparameter() -> None:
    recipe = Recipe.model_validate(recipe_dict("mix", 24))
    changed = override(
        recipe,
        ["optimizer.lr=1e-4", "training.schedule.kind=linear", f"tokens={STEP_TOKENS * 4.0}",
         "optimizer.clip_norm=null", "model.rope_theta=5e5", "document_mask=true", "optimizer.betas=[0.8, 0.9]"],
        "r.yaml",
    )  # fmt: skip
    training = changed.training
    assert (training.optimizer.lr, training.schedule.kind, changed.steps) == (1e-4, "linear", 4)
    assert (training.optimizer.clip_norm, training.optimizer.betas) == (None, (0.8, 0.9))
    assert (training.model.rope_theta, changed.document_mask) == (5e5, True)
    assert recipe.training.optimizer.lr == 3e-3
