"""What the command line resolves to: phases, each a recipe checked against its build and a model; without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from corpus.base.numbers import short_count
from corpus.recipe.model import Recipe, load_recipe
from corpus.records.manifest import MANIFEST_FILE, Manifest, build_name, find_build, load_manifest
from corpus.records.stream import STREAM_FILE
from corpus.streams.store import StorePath
from training.data.elastic import fingerprint_fields
from training.model.shapes import CURRICULA, ModelConfig, apply_overrides, get_size, scaled_down
from training.run.optimizer import check_schedule
from training.run.options import Options
from training.run.overrides import override

RECIPES = Path("recipes")
"""Where a curriculum's recipes are looked for: here, else beside the package's source."""


@dataclass(frozen=True)
class PlannedPhase:
    """One training phase as far as its recipe alone tells."""

    index: int
    recipe: Recipe
    """With the overrides applied, and the token budget of the build where there is one."""
    path: Path
    model: ModelConfig
    build: Path
    """The build directory, `DATA/<recipe name>`, or of a trial `DATA/<recipe name>@N`."""
    build_command: str

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    @property
    def steps(self) -> int:
        """Optimiser steps of the phase."""
        return self.recipe.steps


@dataclass(frozen=True)
class Phase(PlannedPhase):
    """A phase whose build is there and fits."""

    manifest: Manifest


def resolve(options: Options) -> list[Phase]:
    """The phases the command trains, in order, each checked against its build; raises UserError for the first problem.

    Recipes that are not built are all named at once, with the commands that build them.
    """
    phases = plan(options)
    built = [phase for phase in phases if isinstance(phase, Phase)]
    commands = [phase.build_command for phase in phases if not isinstance(phase, Phase)]
    if commands:
        many = f"{len(commands)} of {len(phases)} recipes are" if len(phases) > 1 else "the recipe is"
        raise UserError(f"{many} not built", where=str(options.data), fix=f"Run: {' && '.join(commands)}")
    if len({phase.model.vocab_size for phase in built}) > 1:
        raise UserError("the phases do not share one tokenizer", where="--phases", fix="Train them as separate runs.")
    return built


def plan(options: Options) -> list[PlannedPhase]:
    """The same phases, of which those without a build stay PlannedPhase."""
    size = get_size(options.size)
    names = options.phases or CURRICULA[size.family]
    paths = [options.recipe] if options.recipe else [_recipe_path(name) for name in names]
    return [_phase(options, size, index, path) for index, path in enumerate(paths)]


def _recipe_path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    local = RECIPES / f"{name}.yaml"
    beside = Path(__file__).resolve().parents[2] / local
    return beside if beside.is_file() and not local.is_file() else local


def _out(data: Path) -> str:
    return "" if data == Path("data") else f" --out {data}"


def _phase(options: Options, size: ModelConfig, index: int, path: Path) -> PlannedPhase:
    recipe = load_recipe(path)
    if isinstance(options.data, StorePath):
        build: Path = options.data / build_name(recipe.name, options.max_tokens)
    else:
        build = find_build(options.data, recipe.name, options.max_tokens)
    trial = "" if options.max_tokens is None else f" --max-tokens {short_count(options.max_tokens)}"
    command = f"python -m corpus.build {path}{_out(options.data)}{trial}"
    manifest = load_manifest(build) if (build / MANIFEST_FILE).is_file() else None
    if manifest:
        _check_build(recipe, manifest, build, f"Run: {command}")
        # A build made with --max-tokens holds a shorter phase than the recipe asks for; --set may shorten it more.
        recipe = recipe.model_copy(update={"tokens": manifest.tokens})
    recipe = override(recipe, options.overrides, str(path))
    model = _model(options, size, manifest, str(path))
    if recipe.seq_len > model.max_positions:
        raise UserError(
            f"its sequences of {recipe.seq_len} tokens exceed the {model.max_positions} positions of size {size.name}",
            where=str(path),
            fix="Build it with a shorter seq_len.",
        )
    if recipe.training.distillation and isinstance(build, StorePath):
        raise UserError("a teacher needs the build on this machine", where=str(path), fix="Copy it, and name --data.")
    check_schedule(recipe.training.schedule, recipe.steps, str(path))
    planned = PlannedPhase(index, recipe, path, apply_overrides(model, recipe.training.model), build, command)
    return Phase(**vars(planned), manifest=manifest) if manifest else planned


def _model(options: Options, size: ModelConfig, manifest: Manifest | None, where: str) -> ModelConfig:
    vocab = manifest.tokenizer.vocab_size if manifest else size.vocab_size
    if options.scaled_down:
        return scaled_down(size).with_vocab(vocab)
    if options.fit_vocab or size.family == "tiny":
        return size.with_vocab(vocab)
    if vocab != size.vocab_size:
        raise UserError(
            f"its tokenizer has {vocab:,} ids, size {size.name} has {size.vocab_size:,}",
            where=where,
            fix="Use a recipe with the size's tokenizer, or add --fit-vocab to resize the embedding.",
        )
    return size


def _check_build(recipe: Recipe, manifest: Manifest, build: Path, rebuild: str) -> None:
    pairs = {
        "seq_len": (recipe.seq_len, manifest.seq_len),
        "boundary": (recipe.boundary, manifest.boundary),
        "mixture": (sorted(recipe.mixture), sorted(manifest.sources)),
        **{
            f"mixture.{name}.weight": (entry.weight, manifest.sources[name].weight_asked)
            for name, entry in recipe.mixture.items()
            if name in manifest.sources
        },
    }
    for key, (now, built) in pairs.items():
        if now != built:
            raise UserError(f"{key} is {now} in the recipe but {built} in the build", where=str(build), fix=rebuild)
    for name, source in manifest.sources.items():
        if not (build / source.stream / STREAM_FILE).is_file():
            raise UserError(f"the stream of '{name}' is missing ({source.stream})", where=str(build), fix=rebuild)


def data_fields(phase: Phase) -> dict[str, Any]:
    """What decides which samples each step of the phase sees, as its loader and its checkpoints have it."""
    training = phase.recipe.training
    return fingerprint_fields(
        manifest=phase.manifest.fingerprint,
        mixture=[(name, source.weight_asked) for name, source in phase.manifest.sources.items()],
        seed=phase.recipe.seed,
        seq_len=phase.recipe.seq_len,
        global_batch=training.global_batch,
        canonical_nodes=training.canonical_nodes,
        total_steps=phase.steps,
        virtual_epoch_samples=training.virtual_epoch_samples,
    )


def describe(phase: Phase) -> dict[str, Any]:
    """A phase as the run folder records it."""
    return {
        "recipe": phase.recipe.model_dump(mode="json"),
        "manifest": phase.manifest.fingerprint,
        "model": dataclasses.asdict(phase.model),
        "steps": phase.steps,
        "tokens": phase.recipe.tokens,
    }
