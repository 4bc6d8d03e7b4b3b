"""From a recipe to the streams it needs: the files of every source, the tokenizer, and a plan for each entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from corpus.acquire import AcquireConfig, preflight
from corpus.base.errors import UserError
from corpus.catalogue.load import find_source
from corpus.cleaning.steps import CleaningStep
from corpus.recipe.model import Recipe
from corpus.recipe.shares import draws, token_limit
from corpus.records.stream import Tokenizer
from corpus.streams.inputs import all_origins, source_inputs, with_evaluations_fetched
from corpus.streams.plan import StreamPlan
from corpus.tokenization.check import choose_engine
from corpus.tokenization.resolve import resolve_tokenizer
from corpus.tokenization.specs import shown


def plan_streams(
    recipe: Recipe, config: AcquireConfig, data: Path, say: Callable[[str], None], *, only: list[str],
    max_tokens: int | None, engine: str | None, keep_removed: bool,
) -> tuple[dict[str, StreamPlan], Tokenizer]:  # fmt: skip
    """Find every source's files, the tokenizer, and from them each entry's stream; ``data`` is the data folder.

    Raises UserError where a source cannot be read, or an entry's files or settings do not make a stream.
    """
    sources = {name: find_source(entry.source, recipe.sources) for name, entry in recipe.mixture.items()}
    _refuse_twins(recipe)
    wanted = {name: source for name, source in sources.items() if not only or name in only}
    # Training a tokenizer and comparing documents across sources take all of them, whatever is built.
    needed = sources if recipe.tokenizer.kind == "train" or any(s.compares for s in recipe.cleaning) else wanted
    cleaning = [cast(CleaningStep, step.at(config.base_dir)) for step in recipe.cleaning]
    listings = preflight(all_origins(needed, cleaning), config)
    cleaning = [with_evaluations_fetched(step, listings, config, data, say) for step in cleaning]
    inputs = {name: source_inputs(name, source, listings, config, data, say) for name, source in needed.items()}
    tokenizer = resolve_tokenizer(recipe.tokenizer, recipe.boundary, recipe.name, inputs, config, data, say)
    allow_lossy = getattr(recipe.tokenizer, "allow_lossy", False)
    chosen, notes, lost = choose_engine(
        data / tokenizer.path / "tokenizer.json", engine, allow_lossy=allow_lossy, name=shown(recipe.tokenizer)
    )
    tokenizer = tokenizer.model_copy(update={"loses": lost})
    for note in notes:
        say(f"note: {note}")
    samples = recipe.phase_tokens(max_tokens) // recipe.seq_len
    drawn = draws({name: entry.weight for name, entry in recipe.mixture.items()}, samples)
    plans = {}
    for name, (source, listing) in inputs.items():
        plans[name] = StreamPlan(
            entry=name,
            source_name=recipe.mixture[name].source,
            source=source,
            origin=sources[name].origin,
            listing=listing,
            tokenizer=tokenizer,
            engine=chosen,
            seq_len=recipe.seq_len,
            boundary=recipe.boundary,
            cleaning=cleaning,
            malformed=recipe.malformed,
            unit_bytes=recipe.unit_bytes,
            token_limit=token_limit(drawn[name], recipe.seq_len) if max_tokens is not None else None,
            seed=recipe.seed,
            data=data,
            acquire=config,
            keep_removed=keep_removed,
        )
    return plans, tokenizer


def _refuse_twins(recipe: Recipe) -> None:
    first: dict[str, str] = {}
    for name, entry in recipe.mixture.items():
        if entry.source in first:
            raise UserError(
                f"entries '{first[entry.source]}' and '{name}' use the same source '{entry.source}'",
                where=f"recipe '{recipe.name}': key 'mixture'",
                fix="Merge them into one entry with the sum of their weights.",
            )
        first[entry.source] = name
