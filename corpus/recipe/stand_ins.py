"""Putting ungated stand-ins in the place of gated sources, when that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpus.catalogue.load import find_source, stand_ins

if TYPE_CHECKING:
    from corpus.recipe.model import Recipe


def with_stand_ins(recipe: Recipe) -> tuple[Recipe, dict[str, str]]:
    """The recipe with each gated source replaced by its first ungated stand-in, and {source: stand-in}.

    Gated sources without a stand-in stay; raises UserError for unknown sources.
    """
    replaced: dict[str, str] = {}
    mixture = dict(recipe.mixture)
    for name, entry in recipe.mixture.items():
        if find_source(entry.source, recipe.sources).gate is None:
            continue
        open_ones = [other for other in stand_ins(entry.source) if find_source(other).gate is None]
        if open_ones:
            replaced[entry.source] = open_ones[0]
            mixture[name] = entry.model_copy(update={"source": open_ones[0]})
    return recipe.model_copy(update={"mixture": mixture}), replaced
