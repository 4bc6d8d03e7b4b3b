"""`--set KEY=VALUE`: hyperparameters of a recipe replaced from the command line, and nothing that a build fixes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from corpus.base.config import parse
from corpus.base.errors import UserError, nearest
from corpus.recipe.model import Recipe
from corpus.recipe.training import ModelOverrides, Training

TOP_KEYS = ("tokens", "seed", "document_mask")
"""Recipe keys outside `training` that may be overridden; everything else is fixed by the build."""


def override(recipe: Recipe, settings: Iterable[str], where: str) -> Recipe:
    """`recipe` with KEY=VALUE settings applied; keys are those of `training` (its name may be left out) and TOP_KEYS.

    Raises UserError naming the nearest key for an unknown one.
    """
    data = recipe.model_dump(mode="json")
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UserError(f"'{setting}' is not KEY=VALUE", where="--set", fix="Write e.g. --set optimizer.lr=1e-3.")
        parts = key.removeprefix("training.").split(".")
        if parts[0] in Recipe.model_fields and parts[0] not in (*TOP_KEYS, "training"):
            raise UserError(
                f"'{key}' is fixed by the build", where="--set", fix=f"Change it in {where} and build again."
            )
        level: Any = data if parts[0] in TOP_KEYS else data["training"]
        for part in parts[:-1]:
            level = level.get(part) if isinstance(level, dict) else None
        if not isinstance(level, dict) or parts[-1] not in level:
            known = [*_keys(Training.model_validate(data["training"]).model_dump(mode="json")), *TOP_KEYS]
            raise UserError(f"unknown hyperparameter '{key}'", where="--set", fix=nearest(".".join(parts), known))
        level[parts[-1]] = _value(text)
    return parse(Recipe, data, f"{where} with --set") if settings else recipe


def model_options(fields: Mapping[str, Any]) -> str:
    """The --set options, as typed in a shell, that give a model these fields; those no recipe can set are left out."""
    known = [name for name in ModelOverrides.model_fields if name in fields]
    return " ".join(f"--set {shlex.quote(f'model.{name}={json.dumps(fields[name])}')}" for name in known)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _keys(data: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in data.items():
        names += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names
