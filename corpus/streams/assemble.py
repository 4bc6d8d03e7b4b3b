"""From complete streams to the manifest of a build: what each holds, and what the phase draws from it."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from corpus.base.errors import UserError
from corpus.base.files import fingerprint
from corpus.recipe.model import Recipe
from corpus.recipe.shares import draws
from corpus.records.manifest import Manifest, ManifestSource
from corpus.records.stream import StreamRecord, Tokenizer
from corpus.streams.plan import StreamPlan


def check_epochs(recipe: Recipe, name: str, samples: int, max_tokens: int | None, recipe_file: Path) -> None:
    """Raise UserError when the phase would repeat an entry, of which there are ``samples``, beyond its max_epochs."""
    most = recipe.mixture[name].max_epochs
    if most is None:
        return
    weights = {other: entry.weight for other, entry in recipe.mixture.items()}
    drawn = draws(weights, recipe.phase_tokens(max_tokens) // recipe.seq_len)[name]
    if drawn > most * samples:
        raise UserError(
            f"the phase would repeat '{name}' {drawn / max(1, samples):.2f} times, more than max_epochs {most:g}",
            where=f"{recipe_file}: key 'mixture.{name}.max_epochs'",
            fix="Lower its weight or the phase's tokens, add data, or raise max_epochs.",
        )


def make_manifest(
    recipe: Recipe, plans: dict[str, StreamPlan], records: dict[str, StreamRecord], tokenizer: Tokenizer, *,
    recipe_file: Path, max_tokens: int | None, workers: int, seconds: float,
) -> Manifest:  # fmt: skip
    """The manifest of a recipe whose streams are complete; ``seconds`` is how long the build took.

    Raises UserError when the phase would repeat a source beyond its max_epochs.
    """
    tokens = recipe.phase_tokens(max_tokens)
    drawn = draws({name: entry.weight for name, entry in recipe.mixture.items()}, tokens // recipe.seq_len)
    shares = recipe.shares()
    sources = {}
    for name, entry in recipe.mixture.items():
        record, plan = records[name], plans[name]
        epochs = drawn[name] / record.samples
        check_epochs(recipe, name, record.samples, max_tokens, recipe_file)
        sources[name] = ManifestSource(
            source=entry.source,
            stream=f"../streams/{plan.folder.name}",
            stream_fingerprint=record.fingerprint,
            revision=record.revision,
            licence=plans[name].source.licence,
            redistributable=plans[name].source.redistributable,
            documents=record.documents,
            evaluations=record.evaluations,
            sampled=record.sampled,
            tokens=record.tokens.written,
            samples=record.samples,
            text_bytes=record.text_bytes,
            weight_asked=entry.weight,
            weight=shares[name],
            samples_drawn=drawn[name],
            tokens_drawn=drawn[name] * recipe.seq_len,
            epochs=epochs,
        )
    per_step = recipe.training.global_batch * recipe.seq_len
    return Manifest(
        recipe=recipe.name,
        family=recipe.family,
        phase=recipe.phase,
        recipe_sha256=fingerprint(recipe.model_dump(mode="json")),
        seq_len=recipe.seq_len,
        boundary=recipe.boundary,
        document_mask=recipe.document_mask,
        tokenizer=tokenizer,
        tokens=tokens,
        steps=tokens // per_step,
        global_batch=recipe.training.global_batch,
        seed=recipe.seed,
        weight_sum=recipe.weight_sum(),
        sources=sources,
        built={
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "workers": workers,
            "engine": next(iter(plans.values())).engine,
            "python": platform.python_version(),
            "versions": {
                name: metadata.version(name) for name in ("datatrove", "gigatoken", "tokenizers", "zstandard")
            },
        },
    )
