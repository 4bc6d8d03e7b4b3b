"""Where a run stands and whether this command may go on from there: looked up before anything is written.

From the run's records alone, without torch, so that a refusal and "nothing left to train" come at once. The rules:

- A finished phase stays as it was trained. Its learning rate and the order of its data were laid out over its steps, so
  asking for more of them is refused; a longer training is another run that starts from this one (--load).
- Inside a phase the data may not change, nor what the model computes, unless a flag lets it; both are recorded in the
  checkpoints and in run.json. Other hyperparameters may, and run.json says which.
- What a command asks of phases that are finished is said to be left out, and changes no record.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from corpus.base.files import read_json
from training.data.elastic import ALLOW_FLAG, check_resume, short_value
from training.model.shapes import ModelConfig, model_config
from training.run import checkpoint
from training.run.checkpoint import Record
from training.run.folder import RunFolder
from training.run.options import Options
from training.run.phases import Phase, data_fields
from training.run.world import world_size

MODEL_FLAG = "--allow-changed-model"

DESCRIPTIVE = ("name", "family", "published", "seq_len", "max_positions")
"""Fields of ModelConfig that change nothing of what a model computes."""

SHAPES = ("layers", "heads", "kv_heads", "dim", "ffn", "vocab_size", "head_dim", "tied")
"""Fields of ModelConfig that fix its tensors: a checkpoint cannot be loaded into a model where they differ."""

QUICK_BYTES = 256 << 20
"""A checkpoint up to this size is verified by every process before torch is imported; a larger one by the first alone,
once the processes can speak to each other."""

QUIET_SECONDS = 60.0
"""A checkpoint this old has not just been written by another command, so all processes of a job see the same."""


@dataclass(frozen=True)
class Standing:
    """A run's position, and what this command changes from here on."""

    path: Path | None = None
    """The newest intact checkpoint."""
    record: Record | None = None
    """Of that checkpoint, with the change of model that was let pass now among its `model_changes`."""
    changes: list[str] = field(default_factory=list)
    """Hyperparameters that differ from the start before, of the phases still to be trained."""
    ignored: list[str] = field(default_factory=list)
    """The same of phases that are finished, where they have no effect."""
    allowed: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """What a flag let pass: "data" and "model", each as {field: [before, now]}."""

    @property
    def phase(self) -> int:
        """0-based phase that is trained next; the number of phases when all are done."""
        return self.record.phase + self.record.finished if self.record else 0

    @property
    def step(self) -> int:
        """Steps of that phase which are done."""
        return 0 if self.record is None or self.record.finished else self.record.step

    @property
    def last(self) -> tuple[int, int]:
        """Phase and step of the checkpoint: what came after it is done again."""
        return (self.record.phase, self.record.step) if self.record else (0, 0)

    def notes(self) -> list[str]:
        """What a person should know of this start, a line each."""
        flags = {"data": ALLOW_FLAG, "model": MODEL_FLAG}
        lets = [
            f"let pass by {flags[kind]}: {name} {short_value(was)} -> {short_value(now)}"
            for kind, changed in self.allowed.items()
            for name, (was, now) in changed.items()
        ]
        return [
            *(f"changed since the last start: {line}" for line in self.changes),
            *(f"left out, since the phase is finished: {line}" for line in self.ignored),
            *lets,
        ]

    def facts(self) -> dict[str, Any]:
        """The same for run.json."""
        resumed = {"phase": self.record.recipe, "step": self.record.step} if self.record else None
        return {"resumed": resumed, "changed": self.changes, "allowed": self.allowed}

    def is_done(self, ends: list[int]) -> bool:
        """Whether a command that ends each phase at these steps has nothing to do."""
        return self.phase >= len(ends) or self.step >= ends[self.phase]


def run_name(options: Options, phases: list[Phase]) -> str:
    """The run's folder name: given, or the size with its recipe or curriculum."""
    what = phases[0].name if len(phases) == 1 else phases[0].recipe.family
    return options.run_name or f"{options.model_name}-{what}"


def last_steps(phases: list[Phase], until: int | None) -> list[int]:
    """The step of each phase at which this command ends; `until` counts over all phases, 0 means not begun."""
    ends, before = [], 0
    for phase in phases:
        ends.append(phase.steps if until is None else max(0, min(phase.steps, until - before)))
        before += phase.steps
    return ends


def stand(folder: RunFolder, options: Options, phases: list[Phase], found: tuple[Path, Record] | None) -> Standing:
    """Where the run stands with its newest checkpoint `found`; raises UserError when the command may not go on."""
    known = read_json(folder.record) if folder.record.is_file() else None
    described = known["phases"] if known else []
    if known:
        _check_name(folder, options, phases, known)
    path, record = found or (None, None)
    if record is None:
        return Standing(changes=_changed(described, phases, range(len(phases))))
    if record.phase >= len(phases):
        return Standing(path, record)
    if record.recipe != phases[record.phase].name:
        raise _other_run(folder, f"over {record.recipe}")
    first = record.phase + record.finished
    for index in range(first):
        done = record.step if index == record.phase else described[index]["steps"] if known else phases[index].steps
        _check_not_longer(folder, phases[index], done)
    allowed: dict[str, dict[str, list[Any]]] = {}
    if not record.finished:
        record, allowed = _check_position(folder, options, phases[first], record, described[first : first + 1])
    return Standing(
        path,
        record,
        changes=_changed(described, phases, range(first, len(phases)), under_way=not record.finished),
        ignored=_changed(described, phases, range(first)),
        allowed=allowed,
    )


def nothing_left(folder: RunFolder, standing: Standing) -> str:
    """What a command says that ends where the run already is."""
    lines = [f"nothing left to train: {folder.root} is where this command ends"]
    lines += [f"note: left out and not recorded: {line}" for line in (*standing.ignored, *standing.changes)]
    return "\n".join(lines)


def look(folder: RunFolder, options: Options, phases: list[Phase]) -> Standing | None:
    """Where the run seems to stand, without the run's lock; raises UserError as `stand` does.

    None when that cannot be relied upon: only a Standing that is done may be, and is the same for all processes.
    """
    try:
        return _look(folder, options, phases)
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=str(folder.root), fix="Choose another --out or --run-name."
        ) from None


def _look(folder: RunFolder, options: Options, phases: list[Phase]) -> Standing | None:
    for path in checkpoint.listing(folder.checkpoints):
        try:
            record = checkpoint.read_record(path)
        except UserError:
            continue  # `newest_good` will say so, and set it aside
        standing = stand(folder, options, phases, (path, record))
        age = time.time() - (path / checkpoint.RECORD_FILE).stat().st_mtime
        if sum(file.bytes for file in record.files.values()) > QUICK_BYTES or (
            world_size() > 1 and age < QUIET_SECONDS
        ):
            return None
        try:
            checkpoint.verify(path)
        except UserError:
            return None
        return standing
    stand(folder, options, phases, None)
    return None


def model_differences(theirs: ModelConfig, ours: ModelConfig) -> dict[str, list[Any]]:
    """What one model computes otherwise than another, as {field: [theirs, ours]}."""
    old, new = dataclasses.asdict(theirs), dataclasses.asdict(ours)
    return {name: [old[name], new[name]] for name in old if name not in DESCRIPTIVE and old[name] != new[name]}


def _check_name(folder: RunFolder, options: Options, phases: list[Phase], known: dict[str, Any]) -> None:
    before = [phase["recipe"]["name"] for phase in known["phases"]]
    names = [phase.name for phase in phases]
    if known["size"] != options.model_name or before[: len(names)] != names[: len(before)]:
        raise _other_run(folder, f"of size {known['size']} over {', '.join(before)}")


def _other_run(folder: RunFolder, what: str) -> UserError:
    return UserError(f"holds a run {what}", where=str(folder.root), fix="Choose another --run-name.")


def _check_not_longer(folder: RunFolder, phase: Phase, done: int) -> None:
    if phase.steps <= done:
        return
    more = (phase.steps - done) * (phase.recipe.tokens // phase.steps)
    raise UserError(
        f"{phase.name} was finished at its step {done:,} of {done:,}, and this command asks for {phase.steps:,}: the "
        f"learning rate has run its course and the data was dealt out over {done:,} steps",
        where=str(folder.root),
        fix=f"Train on in a run of its own: --load {folder.root} --run-name NAME --set tokens={more} --set seed=...",
    )


def _check_position(
    folder: RunFolder, options: Options, phase: Phase, record: Record, described: list[dict[str, Any]]
) -> tuple[Record, dict[str, dict[str, list[Any]]]]:
    """The record a phase goes on from and what was let pass; raises UserError for what was not."""
    where = str(folder.root)
    data = check_resume(record.data["fields"], data_fields(phase), allow=True)
    if set(data) == {"total_steps"} and not options.allow_changed_data:
        was, now = data["total_steps"]
        raise UserError(
            f"{phase.name} was laid out over {was:,} steps and this command asks for {now:,}",
            where=where,
            fix=f"Finish it with the tokens it began with and train on in another run with --load, or add {ALLOW_FLAG}:"
            f" from step {record.step + 1:,} on, learning rate and data are then those of a phase of {now:,} steps.",
        )
    check_resume(record.data["fields"], data_fields(phase), allow=options.allow_changed_data)
    if record.step >= phase.steps:
        raise UserError(f"the checkpoint is at step {record.step} of a phase that has {phase.steps} steps", where=where)
    model = model_differences(model_config(record.model), phase.model)
    masked = record.document_mask
    if masked is None and described:
        # Written before checkpoints said it.
        masked = described[0]["recipe"]["document_mask"]
    if masked is not None and masked != phase.recipe.document_mask:
        model["document_mask"] = [masked, phase.recipe.document_mask]
    named = "; ".join(f"{name} was {short_value(was)}, is {short_value(now)}" for name, (was, now) in model.items())
    if any(name in SHAPES for name in model):
        raise UserError(f"the checkpoint is of another model: {named}", where=where, fix="Choose another --run-name.")
    if model and not options.allow_changed_model:
        raise UserError(
            f"the checkpoint was made by a model that computes something else: {named}",
            where=where,
            fix=f"Take it back, start another run with --load, or go on regardless with {MODEL_FLAG}.",
        )
    if model:
        changes = [*record.model_changes, {"step": record.step, "changed": model}]
        record = record.model_copy(update={"model_changes": changes})
    return record, {kind: changed for kind, changed in (("data", data), ("model", model)) if changed}


def _changed(
    described: list[dict[str, Any]], phases: list[Phase], which: range, *, under_way: bool = False
) -> list[str]:
    """Hyperparameters that differ from those in run.json, a line each; of a first phase that is `under_way` without
    those that only fix its data, which are refused or let pass as such."""
    lines: list[str] = []
    for index in which:
        if index < len(described):
            new = phases[index].recipe.model_dump(mode="json")
            old = described[index]["recipe"]
            data_keys = () if under_way and index == which.start else ("tokens", "seed")
            for key in (*data_keys, "document_mask", "training"):
                prefix = f"{phases[index].name}:" if key == "training" else f"{phases[index].name}: {key}"
                lines += _differences(old[key], new[key], prefix)
    return lines


def _differences(old: Any, new: Any, prefix: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in [*old, *(key for key in new if key not in old)]:
            joint = " " if prefix.endswith(":") else "."
            lines += _differences(old.get(key), new.get(key), f"{prefix}{joint}{key}")
        return lines
    return [] if old == new else [f"{prefix} {old} -> {new}"]
