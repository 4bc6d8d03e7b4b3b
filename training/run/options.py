"""The trainer's command line, as given."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corpus.base.numbers import count
from corpus.streams.store import location

CACHE = Path("/var/tmp/corpus-cache")  # noqa: S108 - holds a folder per user, whose owner is checked
"""On a disk of the node by custom, where TMPDIR is often memory and a home folder often a network's."""


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
    max_tokens: int | None
    """Train on the trial that `corpus.build --max-tokens` made; None: the whole build, or else the only trial."""
    cache: Path
    """Where a node keeps unpacked shards."""
    cache_limit: int | None
    """Most bytes of them; None keeps all."""
    out: Path
    run_name: str | None
    load: Path | None
    """A run, a checkpoint folder, a folder of training.import_hf or a .safetensors file to start from."""
    save_interval: int
    """Optimiser steps between checkpoints."""
    keep: int
    """Newest checkpoints kept, besides the last of each phase."""
    keep_every: int | None
    """Make and keep a checkpoint at each multiple of this step of a phase."""
    save_minutes: float | None
    """Save, too, when the last save was so many minutes ago."""
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
    allow_changed_model: bool
    parallel: Literal["ddp", "fsdp2"]
    precision: str | None
    checkpoint_activations: Literal["auto", "on", "off"]
    """Whether blocks are computed again in backward; auto: on a GPU that could not hold one sequence otherwise."""
    compile: bool
    deterministic: bool
    """The same bits each time on a GPU, too."""
    wandb: bool
    wandb_project: str
    log_interval: int
    """Optimiser steps between console lines."""

    @property
    def model_name(self) -> str:
        """The size as run folders name it."""
        return f"{self.size}-scaled" if self.scaled_down else self.size


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
        "--load", type=Path, metavar="RUN",
        help="start from the weights of a run, a checkpoint, an import_hf folder or a .safetensors",
    )  # fmt: skip
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
        "--max-tokens", type=count, metavar="N",
        help="train on the trial of corpus.build --max-tokens N (default: the whole build, else the only trial)",
    )  # fmt: skip
    where.add_argument(
        "--cache", type=Path, default=Path(os.environ.get("CORPUS_CACHE") or CACHE), metavar="DIR",
        help=f"scratch of each node for unpacked shards (default: $CORPUS_CACHE, else {CACHE}); python -m "
        "training.simulate tells its size",
    )  # fmt: skip
    where.add_argument(
        "--cache-limit", type=count, metavar="BYTES",
        help="most bytes of unpacked shards on each node, e.g. 500GB; such a cache is this run's own",
    )  # fmt: skip
    where.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    where.add_argument("--run-name", type=_folder_name, help="name of the run's folder (default: SIZE-RECIPE)")
    run = parser.add_argument_group("how to run")
    run.add_argument("--until", type=_positive, metavar="STEP", help="pause after this step; the same command goes on")
    run.add_argument("--save-interval", type=_positive, default=1000, metavar="STEPS", help="steps between checkpoints")
    run.add_argument(
        "--save-minutes", type=_minutes, metavar="M", help="save, too, when the last save was M minutes ago"
    )
    run.add_argument(
        "--keep", type=_positive, default=3, metavar="N",
        help="newest checkpoints kept, besides the last of each phase (default: 3)",
    )  # fmt: skip
    run.add_argument("--keep-every", type=_positive, metavar="STEPS", help="make and keep a checkpoint each STEPS")
    run.add_argument("--workers", type=_not_negative, default=1, help="data-loading processes per device (default: 1)")
    run.add_argument("--device-batch", type=_device_batch, default="auto", metavar="N|auto",
                     help="sequences per forward pass on each device (default: auto)")  # fmt: skip
    run.add_argument(
        "--parallel", choices=("ddp", "fsdp2"), default="ddp", help="replicate (ddp) or shard (fsdp2) the model"
    )
    run.add_argument("--precision", choices=("fp32", "amp_bf16"), help="default: amp_bf16 on GPU, fp32 on CPU")
    run.add_argument(
        "--checkpoint-activations", choices=("auto", "on", "off"), default="auto",
        help="compute blocks again in backward instead of keeping their activations: the same bits, less memory, about "
        "a third slower (default: auto, where one sequence would not fit otherwise)",
    )  # fmt: skip
    run.add_argument("--compile", action="store_true", help="torch.compile the model")
    run.add_argument(
        "--deterministic", action="store_true",
        help="on a GPU, too, only kernels that add in a fixed order: the same bits each time, more slowly",
    )  # fmt: skip
    run.add_argument("--log-interval", type=_positive, default=10, metavar="STEPS", help="steps between console lines")
    run.add_argument("--wandb", action="store_true", help="also log to Weights & Biases")
    run.add_argument(
        "--wandb-project", default="mobilecorpus", metavar="NAME", help="its project there (default: mobilecorpus)"
    )
    run.add_argument(
        "--allow-changed-data", action="store_true", help="resume although the data changed; recorded in the run"
    )
    run.add_argument(
        "--allow-changed-model", action="store_true",
        help="--load weights although this model computes something else with them; recorded in the run",
    )  # fmt: skip
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


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
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
