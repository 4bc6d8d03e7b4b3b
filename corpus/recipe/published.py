"""The published reference of a recipe: rows, tokens, shares and repetition as the papers and cards print them.

`python -m corpus.plan --write-references manifests` writes one file per recipe from the catalogue and the recipe alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from corpus.base.config import Strict, parse
from corpus.base.errors import UserError
from corpus.base.files import read_json, write_json
from corpus.catalogue.load import find_source
from corpus.catalogue.models import Published, Source
from corpus.recipe.model import Recipe, load_recipe
from corpus.recipe.shares import draws, exact_shares

TABLES: dict[str, Literal["pretraining", "midtraining", "posttraining"]] = {
    "phase1": "pretraining",
    "phase2": "pretraining",
    "mid1": "midtraining",
    "mid2": "midtraining",
    "sft_general": "posttraining",
    "sft_reasoning": "posttraining",
}
"""Which table of the papers a phase's sources are counted in."""


class PublishedSource(Strict):
    """One mixture entry, with the counts that are printed for it."""

    source: str
    title: str
    licence: str
    redistributable: bool
    gate: str | None = None
    published_rows: int | None = None
    published_tokens: int | None = None
    reference: str | None = None
    """Where rows and tokens are printed; null where nobody prints any."""
    weight_asked: float
    """As printed."""
    weight: float
    """Normalised share of the phase's tokens."""
    samples_drawn: int
    tokens_drawn: int
    """Target tokens drawn: samples_drawn * seq_len."""
    epochs: float | None = None
    """tokens_drawn / published_tokens, to 4 decimals; null without published tokens."""


class PublishedManifest(Strict):
    """A file of manifests/: what a recipe is by its published numbers."""

    kind: Literal["published"] = "published"
    format: int = 1
    recipe: str
    family: str
    phase: str
    summary: str
    tokens: int
    """Target tokens of the phase."""
    steps: int
    global_batch: int
    seq_len: int
    weight_sum: float
    """Sum of the weights as printed, before normalising."""
    sources: dict[str, PublishedSource] = Field(min_length=1)
    provenance: dict[str, str] = {}
    """Where the recipe's numbers come from, by dotted key."""


def published_counts(source: Source, phase: str) -> tuple[int | None, int | None, list[Published]]:
    """(rows, tokens, the entries they are from): of the phase's own table, else of upstream, else of another table."""
    own = TABLES.get(phase)
    entries = sorted(source.published, key=lambda entry: (entry.table != own, entry.table != "upstream"))
    rows = next((entry for entry in entries if entry.rows is not None), None)
    tokens = next((entry for entry in entries if entry.tokens is not None), None)
    used = [entry for entry in entries if entry is rows or entry is tokens]
    return rows.rows if rows else None, tokens.tokens if tokens else None, used


def published_manifest(recipe: Recipe) -> PublishedManifest:
    """The published reference of a recipe; raises UserError for a source that does not exist."""
    weights = {name: entry.weight for name, entry in recipe.mixture.items()}
    shares, drawn = exact_shares(weights), draws(weights, recipe.samples)
    sources = {}
    for name, entry in recipe.mixture.items():
        source = find_source(entry.source, recipe.sources)
        rows, tokens, used = published_counts(source, recipe.phase)
        tokens_drawn = drawn[name] * recipe.seq_len
        sources[name] = PublishedSource(
            source=entry.source,
            title=source.title,
            licence=source.licence,
            redistributable=source.redistributable,
            gate=source.gate,
            published_rows=rows,
            published_tokens=tokens,
            reference="; ".join(item.reference for item in used) or None,
            weight_asked=entry.weight,
            weight=round(float(shares[name]), 10),
            samples_drawn=drawn[name],
            tokens_drawn=tokens_drawn,
            epochs=round(tokens_drawn / tokens, 4) if tokens else None,
        )
    return PublishedManifest(
        recipe=recipe.name,
        family=recipe.family,
        phase=recipe.phase,
        summary=recipe.summary,
        tokens=recipe.tokens,
        steps=recipe.steps,
        global_batch=recipe.training.global_batch,
        seq_len=recipe.seq_len,
        weight_sum=round(recipe.weight_sum(), 6),
        sources=sources,
        provenance=recipe.provenance,
    )


def write_published(manifest: PublishedManifest, folder: Path) -> Path:
    """Write `<recipe>.json` into ``folder``; the bytes depend on catalogue and recipe only."""
    path = folder / f"{manifest.recipe}.json"
    write_json(path, manifest.model_dump(mode="json"))
    return path


def write_references(recipes: list[Path], folder: Path) -> list[Path]:
    """Write the published reference of each recipe (of all documented ones when none is named)."""
    paths = recipes or sorted(Path("recipes").glob("*.yaml"))
    if not paths:
        raise UserError("there is no recipes folder here", where="--write-references", fix="Run it in the repository.")
    loaded = [load_recipe(path) for path in paths]
    return [write_published(published_manifest(recipe), folder) for recipe in loaded if recipe.family != "sample"]


def load_published(path: Path) -> PublishedManifest:
    """Read a file of manifests/; raises UserError naming file and key."""
    return parse(PublishedManifest, read_json(path), str(path))
