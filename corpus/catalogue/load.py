"""The catalogue: every dataset of the MobileLLM papers, and ungated stand-ins, as data in this folder's YAML files."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from corpus.base.config import parse, read_yaml
from corpus.base.errors import UserError, nearest
from corpus.catalogue.models import Source

FOLDER = Path(__file__).parent
EVALUATION_FILE = "evaluation.yaml"
"""Evaluation sets, which are no sources to train on."""


@functools.cache
def load_catalogue() -> dict[str, Source]:
    """All sources by name, in the files' order (one shared mapping); raises UserError naming file, source and key."""
    return read_catalogue(FOLDER)


@functools.cache
def load_evaluations() -> dict[str, Source]:
    """The evaluation sets a decontaminate step can name (one shared mapping); none of them is in the catalogue."""
    where = f"{FOLDER.parent.name}/{FOLDER.name}/{EVALUATION_FILE}"
    entries = read_yaml(FOLDER / EVALUATION_FILE)
    return {name: parse(Source, entry, f"{where}: set '{name}'") for name, entry in entries.items()}


def read_catalogue(folder: Path) -> dict[str, Source]:
    """Read the YAML files of ``folder``, but for the evaluation sets; raises UserError, also for a name given twice."""
    sources: dict[str, Source] = {}
    file_of: dict[str, str] = {}
    for path in sorted(set(folder.glob("*.yaml")) - {folder / EVALUATION_FILE}):
        # The path people see is the one in the repository, wherever the package is installed.
        where = f"{folder.parent.name}/{folder.name}/{path.name}"
        for name, entry in read_yaml(path).items():
            if name in sources:
                raise UserError(
                    f"source '{name}' is already defined in {file_of[name]}", where=where, fix="Give one another name."
                )
            sources[name] = parse(Source, entry, f"{where}: source '{name}'")
            file_of[name] = path.name
    for name, source in sources.items():
        if source.stand_in_for is not None and source.stand_in_for not in sources:
            raise UserError(
                f"stand_in_for names '{source.stand_in_for}', which is no source",
                where=f"{folder.parent.name}/{folder.name}/{file_of[name]}: source '{name}'",
                fix=nearest(source.stand_in_for, sources),
            )
    return sources


def find_source(name: str, recipe_sources: Mapping[str, Source] | None = None) -> Source:
    """The source called ``name``, the recipe's own or the catalogue's; raises UserError with the nearest name."""
    own = recipe_sources or {}
    if name in own:
        return own[name]
    catalogue = load_catalogue()
    if name in catalogue:
        return catalogue[name]
    raise UserError(f"no source is called '{name}'", fix=nearest(name, {*own, *catalogue}))


def stand_ins(name: str) -> list[str]:
    """Names of the sources that can replace ``name``, best first (the catalogue's order)."""
    return [other for other, source in load_catalogue().items() if source.stand_in_for == name]
