"""A run's folder: what it trains, with what, and the lock that keeps two commands from training it at once.

RUN/run.json            size, resolved phases, and one entry per start: command, versions, git state, processes
RUN/manifest.json       of the phase being trained; manifests/ holds all that were trained on, by phase and fingerprint
RUN/tokenizer/          tokenizer.json and meta.json
RUN/metrics.jsonl       one line per optimiser step
RUN/checkpoints/  RUN/tensorboard/  RUN/loss.png
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError
from corpus.base.files import atomic_write, read_json, write_json
from corpus.base.locks import Lock
from corpus.records.manifest import MANIFEST_FILE, Manifest, load_manifest
from corpus.streams.store import copy_folder
from training.model.shapes import ModelConfig, model_config
from training.run import checkpoint
from training.run.environment import git_state, versions
from training.run.options import Options
from training.run.phases import Phase, describe
from training.run.world import world_size

if TYPE_CHECKING:
    from torch import Tensor

LOCK_PATIENCE = 100.0
"""Seconds to wait for an earlier command of the same run to finish saving, or for NFS to notice (90 s) that it died."""


class RunFolder:
    """Paths of one run, and what the first process writes there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.metrics = root / "metrics.jsonl"
        self.tensorboard = root / "tensorboard"
        self.plot = root / "loss.png"
        self.record = root / "run.json"
        self._lock: Lock | None = None

    def lock(self) -> None:
        """Take the run for this process; raises UserError when another command keeps training it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.root / ".lock")
        except OSError as error:
            raise UserError(
                f"cannot be written: {error.strerror}", where=str(self.root), fix="Choose another --out."
            ) from None
        deadline = time.monotonic() + LOCK_PATIENCE
        while not self._lock.exclusive(wait=False):
            if time.monotonic() > deadline:
                raise UserError(
                    "another command is training this run",
                    where=str(self.root),
                    fix="Stop it, or choose another --run-name.",
                )
            time.sleep(0.2)

    def unlock(self) -> None:
        """Give the run up."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def start(self, options: Options, phases: list[Phase], first: int, facts: Mapping[str, Any]) -> None:
        """Record a start in run.json: `facts`, and how the phases from `first` on are trained now.

        Earlier phases stay as they were trained, and later ones that this command does not name as they were planned.
        """
        known = read_json(self.record) if self.record.is_file() else {"phases": [], "starts": []}
        before = known["phases"]
        described = [*before[:first], *map(describe, phases[first:]), *before[len(phases) :]]
        start = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "processes": world_size(),
            **facts,
            "git": git_state(),
            "versions": versions(),
        }
        starts = [*known["starts"], start]
        write_json(
            self.record, {"run": self.root.name, "size": options.model_name, "phases": described, "starts": starts}
        )

    def enter_phase(self, phase: Phase, data: Path) -> None:
        """Copy the phase's manifest and tokenizer into the run; manifests that were trained on before stay."""
        phase.manifest.write(self.root)
        write_json(
            _manifest_file(self.root, phase.name, phase.manifest.fingerprint), read_json(self.root / MANIFEST_FILE)
        )
        source = data / phase.manifest.tokenizer.path
        if source.is_dir():
            copy_folder(source, self.root / "tokenizer")

    def truncate_metrics(self, phase: int, step: int) -> None:
        """Drop the metrics of steps after `step` of `phase`, so that each step stands there once."""
        if not self.metrics.is_file():
            return
        kept = [row for row in read_metrics(self.root) if (row["phase"], row["step"]) <= (phase, step)]
        with atomic_write(self.metrics) as stream:
            stream.writelines(json.dumps(row).encode() + b"\n" for row in kept)


def _manifest_file(root: Path, recipe: str, fingerprint: str) -> Path:
    return root / "manifests" / f"{recipe}-{fingerprint[:16]}.json"


def phase_manifest(root: Path, recipe: str, fingerprint: str) -> Manifest:
    """The manifest of that fingerprint which the run `root` trained `recipe` on; raises UserError without one."""
    path = _manifest_file(root, recipe, fingerprint)
    if path.is_file():
        return load_manifest(path)
    # Runs had one file a phase, which the next build of the same recipe overwrote.
    manifest = load_manifest(root / "manifests" / f"{recipe}.json")
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"the manifest that {recipe} was trained on is lost ({fingerprint[:16]}; here is that of another build)",
            where=str(root / "manifests"),
        )
    return manifest


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, a last line cut short by a crash left out."""
    return list(_rows(run / "metrics.jsonl"))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError("no metrics", where=str(path), fix="Name the folder of a run.") from None
    for line in lines[:-1]:
        try:
            yield json.loads(line)
        except ValueError:
            raise UserError("holds a line that is not JSON", where=str(path)) from None


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run folder, or `run` itself when it is a checkpoint; raises UserError without one."""
    if (run / checkpoint.RECORD_FILE).is_file():
        return run
    found = checkpoint.listing(run / "checkpoints")
    if not found:
        raise UserError("no checkpoint here", where=str(run), fix="Name the folder of a run that has saved one.")
    return found[0]


def load_weights(run: Path) -> tuple[dict[str, Tensor], ModelConfig]:
    """The weights of a run's newest checkpoint (or of a checkpoint folder), verified, and the model they belong to.

    Keys are MobileLM's. Raises UserError when there is none or it is damaged.
    """
    path = latest_checkpoint(run)
    record = checkpoint.verify(path)
    return checkpoint.read_weights(path), model_config(record.model)
