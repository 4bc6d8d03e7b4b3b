"""The trainer's command line and what it resolves to: size, phases, builds, hyperparameters; checked without torch."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corpus.base.config import parse
from corpus.base.errors import UserError, nearest
from corpus.recipe.model import Recipe, load_recipe
from corpus.recipe.training import Training
from corpus.records.manifest import MANIFEST_FILE, Manifest, load_manifest
from corpus.records.stream import STREAM_FILE
from corpus.streams.store import StorePath, location
from training.data.elastic import check_world
from training.model.shapes import CURRICULA, ModelConfig, apply_overrides, get_size, scaled_down
from training.run.optimizer import check_schedule

RECIPES = Path("recipes")
"""Where a curriculum's recipes are looked for: here, else beside the package's source."""

TOP_KEYS = ("tokens", "seed", "document_mask")
"""Recipe keys outside `training` that may be overridden; everything else is fixed by the build."""

MICROBATCH_TOKENS = 16_384
"""Tokens per forward pass where Composer cannot find the largest that fits by itself (CPU, FSDP2)."""


@dataclass(frozen=True)
class Options:
    """The command line as given."""

    size: str
    recipe: Path | None
    """One recipe file; None trains `phases`."""
    phases: tuple[str, ...]
    """Recipes of the curriculum to train, by name or path; empty means all of the size's curriculum."""
    data: Path
    """The data folder, of this machine or of a store (s3://bucket/prefix)."""
    cache: Path
    """Where a node keeps shards it fetched from a store."""
    out: Path
    run_name: str | None
    load: Path | None
    """A run, a checkpoint folder or a .safetensors file whose weights the first phase starts from."""
    save_interval: int
    """Optimiser steps between checkpoints."""
    keep: int
    """Newest checkpoints kept."""
    workers: int
    """Data-loading processes per device."""
    device_batch: int | Literal["auto"]
    """Sequences per forward pass on each device."""
    until: int | None
    """Pause after this many optimiser steps of the run, counted over its phases."""
    overrides: tuple[str, ...]
    dry_run: bool
    gpus: str
    """COUNTxNAME, what --dry-run estimates for."""
    fit_vocab: bool
    scaled_down: bool
    """Train `sizes.scaled_down` of the size, on the recipe's tokenizer."""
    allow_changed_data: bool
    parallel: Literal["ddp", "fsdp2"]
    precision: str | None
    compile: bool
    wandb: bool
    log_interval: int
    """Optimiser steps between console lines."""

    @property
    def model_name(self) -> str:
        """The size as run folders name it."""
        return f"{self.size}-scaled" if self.scaled_down else self.size


@dataclass(frozen=True)
class PlannedPhase:
    """One training phase as far as its recipe alone tells."""

    index: int
    recipe: Recipe
    """With the overrides applied, and the token budget of the build where there is one."""
    path: Path
    model: ModelConfig
    build: Path
    """The build directory, `DATA/<recipe name>`."""
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


def parse_args(argv: list[str] | None = None) -> Options:
    """Read the command line; argparse exits with code 2 on a usage error."""
    parser = argparse.ArgumentParser(
        prog="composer training/train.py",
        description="Train a model size on built corpora. The same command again continues the run where it stands.",
    )
    what = parser.add_argument_group("what to train")
    what.add_argument("--size", required=True, help="model size (python -m training.sizes lists them)")
    what.add_argument("--recipe", type=Path, help="train this one recipe instead of the size's whole curriculum")
    what.add_argument(
        "--phases", default="", metavar="A,B", help="train these recipes of the curriculum, in this order"
    )
    what.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a hyperparameter of every phase, e.g. optimizer.lr=1e-3, tokens=1e9, seed=3",
    )  # fmt: skip
    what.add_argument(
        "--load", type=Path, metavar="RUN", help="start from the weights of a run, checkpoint or .safetensors"
    )
    what.add_argument("--fit-vocab", action="store_true", help="resize the embedding to the recipe's tokenizer")
    what.add_argument(
        "--scaled-down", action="store_true",
        help="same features, few and narrow layers: to try a size's curriculum on a laptop",
    )  # fmt: skip
    where = parser.add_argument_group("where")
    where.add_argument(
        "--data", type=location, default=Path("data"),
        help="folder of the builds, or s3://bucket/prefix (default: data)",
    )  # fmt: skip
    where.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir(), "corpus-cache"), metavar="DIR",
        help="with --data s3://: where each node keeps the shards it fetched (default: corpus-cache in TMPDIR)",
    )  # fmt: skip
    where.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    where.add_argument("--run-name", type=_folder_name, help="name of the run's folder (default: SIZE-RECIPE)")
    run = parser.add_argument_group("how to run")
    run.add_argument("--until", type=_positive, metavar="STEP", help="pause after this step; the same command goes on")
    run.add_argument("--save-interval", type=_positive, default=1000, metavar="STEPS", help="steps between checkpoints")
    run.add_argument("--keep", type=_positive, default=3, metavar="N", help="newest checkpoints kept (default: 3)")
    run.add_argument("--workers", type=_not_negative, default=1, help="data-loading processes per device (default: 1)")
    run.add_argument("--device-batch", type=_device_batch, default="auto", metavar="N|auto",
                     help="sequences per forward pass on each device (default: auto)")  # fmt: skip
    run.add_argument(
        "--parallel", choices=("ddp", "fsdp2"), default="ddp", help="replicate (ddp) or shard (fsdp2) the model"
    )
    run.add_argument("--precision", choices=("fp32", "amp_bf16"), help="default: amp_bf16 on GPU, fp32 on CPU")
    run.add_argument("--compile", action="store_true", help="torch.compile the model")
    run.add_argument("--log-interval", type=_positive, default=10, metavar="STEPS", help="steps between console lines")
    run.add_argument("--wandb", action="store_true", help="also log to Weights & Biases")
    run.add_argument(
        "--allow-changed-data", action="store_true", help="resume although the data changed; recorded in the run"
    )
    dry = parser.add_argument_group("dry run")
    dry.add_argument("--dry-run", action="store_true", help="print what would be trained, and estimates; needs no GPU")
    dry.add_argument(
        "--gpus", default="8xH100", metavar="COUNTxNAME", help="hardware of the estimates (default: 8xH100)"
    )
    values = vars(parser.parse_args(argv))
    if values["recipe"] and values["phases"]:
        parser.error("--recipe and --phases exclude each other")
    values["phases"] = tuple(part for part in values["phases"].split(",") if part)
    values["overrides"] = tuple(values["overrides"])
    return Options(**values)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def _folder_name(text: str) -> str:
    if text in ("", ".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be the name of a folder in --out, got '{text}'")
    return text


def _device_batch(text: str) -> int | str:
    return "auto" if text == "auto" else _positive(text)


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
    beside = Path(__file__).resolve().parent.parent / local
    return beside if beside.is_file() and not local.is_file() else local


def _out(data: Path) -> str:
    return "" if data == Path("data") else f" --out {data}"


def _phase(options: Options, size: ModelConfig, index: int, path: Path) -> PlannedPhase:
    recipe = load_recipe(path)
    build = options.data / recipe.name
    command = f"python -m corpus.build {path}{_out(options.data)}"
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


def world_size() -> int:
    """Processes of the job, as the launcher set them; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Processes of the job on this node; 1 without a launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_startable(phase: Phase) -> None:
    """Raise UserError when the job's processes cannot train the phase."""
    training, local = phase.recipe.training, local_world_size()
    check_world(training.global_batch, training.canonical_nodes, world_size() // local, local)
    if training.distillation:
        from training.distillation.start import check_teacher

        check_teacher(phase)


def check_device(options: Options) -> None:
    """Raise UserError when this machine cannot run the options. Imports torch."""
    if options.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError("wandb is not installed", where="--wandb", fix="Run: pip install 'mobilecorpus[wandb]'")
    import torch

    if options.precision == "amp_bf16" and not torch.cuda.is_available():
        raise UserError(
            "amp_bf16 needs a GPU, and torch sees none", where="--precision", fix="Leave it out, or use fp32."
        )
    if torch.cuda.is_available() and local_world_size() > torch.cuda.device_count():
        raise UserError(
            f"{local_world_size()} processes on a node with {torch.cuda.device_count()} GPUs",
            where="composer -n",
            fix=f"Use -n {torch.cuda.device_count()}, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU.",
        )


def microbatch(options: Options, phase: Phase, device: str) -> int | Literal["auto"]:
    """Sequences per forward pass. 'auto' stays so only where Composer can search for it: DDP on CUDA."""
    per_device = phase.recipe.training.global_batch // world_size()
    if options.device_batch != "auto":
        return min(options.device_batch, per_device)
    if device == "cuda" and options.parallel == "ddp":
        return "auto"
    return max(1, min(per_device, MICROBATCH_TOKENS // phase.recipe.seq_len))


def describe(phase: Phase) -> dict[str, Any]:
    """A phase as the run folder records it."""
    return {
        "recipe": phase.recipe.model_dump(mode="json"),
        "manifest": phase.manifest.fingerprint,
        "model": dataclasses.asdict(phase.model),
        "steps": phase.steps,
        "tokens": phase.recipe.tokens,
    }
