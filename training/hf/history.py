"""What a checkpoint was trained on, as its run went: from what the run recorded, not from what the recipe asks for."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from corpus.recipe.model import Recipe
from corpus.records.manifest import Manifest
from training.data.elastic import fingerprint_fields, short_value
from training.data.mixture import plan_epochs
from training.hf.source import Source
from training.run import checkpoint
from training.run.folder import phase_manifest, read_metrics


@dataclass(frozen=True)
class Drawn:
    """What a phase drew from one source."""

    samples: float
    tokens: float
    exact: bool
    """False inside a virtual epoch, whose order lies in the streams: then the source's share of the steps done."""


@dataclass(frozen=True)
class PhaseHistory:
    """One phase, as far as the checkpoint's weights went through it."""

    recipe: Recipe
    """With the run's overrides."""
    manifest: Manifest
    steps: int
    """Optimiser steps done."""
    planned: int
    """Steps of the whole phase."""
    tokens: int
    """Target tokens trained on."""
    global_batch: int
    seed: int
    loss: float | str | None
    """Of the last step done."""
    skipped: int
    """Steps whose update was left out for a bad loss."""
    drawn: Mapping[str, Drawn]
    """By mixture entry."""
    changes: tuple[str, ...] = ()
    """Data that the user let change under way, a line each."""

    @property
    def teacher(self) -> str | None:
        """The model the phase was distilled from."""
        settings = self.recipe.training.distillation
        return shown(settings.teacher) if settings else None


@dataclass(frozen=True)
class History:
    """How a checkpoint came about."""

    run: str
    checkpoint: str
    phases: list[PhaseHistory]
    loaded: str | None = None
    """The weights the run started from; None for random ones."""
    settings: list[str] = field(default_factory=list)
    """KEY=VALUE of every --set, in the order they were given."""
    changes: list[str] = field(default_factory=list)
    """Hyperparameters that changed between starts, a line each."""

    @property
    def last(self) -> PhaseHistory:
        """The phase the checkpoint was made in."""
        return self.phases[-1]

    @property
    def teachers(self) -> list[str]:
        """Every model that one of the phases was distilled from."""
        return list(dict.fromkeys(phase.teacher for phase in self.phases if phase.teacher))


def history_of(source: Source) -> History:
    """The history of a checkpoint; raises UserError when a record of its run is absent or damaged."""
    record, described = source.record, source.run["phases"]
    rows = [row for row in _rows(source) if (row["phase"], row["step"]) <= (record.phase, record.step)]
    phases = [
        _phase(
            source,
            index,
            Recipe.model_validate(described[index]["recipe"]),
            [row for row in rows if row["phase"] == index],
        )
        for index in range(record.phase + 1)
    ]
    names = [phase["recipe"]["name"] for phase in described]
    starts = [start for start in source.run["starts"] if _is_before(start["resumed"], names, record)]
    begun = [start for start in starts if start["resumed"] is None]
    # A run that died before its first checkpoint was begun anew.
    asked = [_asked(start["command"]) for start in [*begun[-1:], *(s for s in starts if s["resumed"])]]
    return History(
        run=source.root.name,
        checkpoint=source.checkpoint.name,
        phases=phases,
        loaded=shown(str(asked[0].load)) if asked and asked[0].load else None,
        settings=list(dict.fromkeys(_shown_setting(text) for each in asked for text in each.settings)),
        changes=[
            f"{name} {was} -> {now}, against the weights loaded"
            for start in begun[-1:]
            for name, (was, now) in ((start.get("loaded") or {}).get("changed") or {}).items()
        ]
        + [
            f"{change}, from step {start['resumed']['step']:,} of {start['resumed']['phase']}"
            for start in starts
            for change in start["changed"]
            if start["resumed"]
        ],
    )


def _rows(source: Source) -> list[dict[str, Any]]:
    return read_metrics(source.root) if (source.root / "metrics.jsonl").is_file() else []


def _phase(source: Source, index: int, recipe: Recipe, rows: list[dict[str, Any]]) -> PhaseHistory:
    current = index == source.record.phase
    record = source.record if current else _kept(source, index)
    manifest = (
        source.manifest
        if current
        else phase_manifest(source.root, recipe.name, source.run["phases"][index]["manifest"])
    )
    last = rows[-1] if rows else {}
    if record:
        steps, tokens = record.step, record.tokens
        fields, changes = record.data["fields"], record.data["changes"]
    else:
        # Its checkpoints are gone: a phase is only left when it is finished, and the metrics say what it did.
        steps, tokens = last.get("step", recipe.steps), last.get("tokens", recipe.tokens)
        fields, changes = _fields(recipe, manifest, steps, tokens), []
    return PhaseHistory(
        recipe=recipe,
        manifest=manifest,
        steps=steps,
        planned=fields["total_steps"],
        tokens=tokens,
        global_batch=fields["global_batch"],
        seed=fields["seed"],
        loss=last.get("loss"),
        skipped=last.get("skips", 0),
        drawn=drawn(fields, changes, steps),
        changes=tuple(
            f"from step {change['step']:,} on {name} is {short_value(now)}, before it was {short_value(was)}"
            for change in changes
            for name, (was, now) in change["changed"].items()
        ),
    )


def _kept(source: Source, index: int) -> checkpoint.Record | None:
    """The record of an earlier phase's end, where that checkpoint is still there."""
    for path in checkpoint.listing(source.root / "checkpoints"):
        if path.name.startswith(f"phase{index:02d}-"):
            record = checkpoint.read_record(path)
            return record if record.finished else None
    return None


def _fields(recipe: Recipe, manifest: Manifest, steps: int, tokens: int) -> dict[str, Any]:
    training = recipe.training
    return fingerprint_fields(
        manifest=manifest.fingerprint,
        mixture=[(name, entry.weight_asked) for name, entry in manifest.sources.items()],
        seed=recipe.seed,
        seq_len=recipe.seq_len,
        global_batch=tokens // (steps * recipe.seq_len),
        canonical_nodes=training.canonical_nodes,
        total_steps=steps,
        virtual_epoch_samples=training.virtual_epoch_samples,
    )


def drawn(fields: Mapping[str, Any], changes: list[dict[str, Any]], steps: int) -> dict[str, Drawn]:
    """What the first `steps` steps of a phase drew from each source.

    `fields` are those of a checkpoint's data position, `changes` what was let pass at which step, oldest first.
    """
    samples: dict[str, float] = defaultdict(float)
    tokens: dict[str, float] = defaultdict(float)
    inexact: set[str] = set()
    for part, begin, end in _parts(fields, changes, steps):
        names = [name for name, _ in part["mixture"]]
        weights = [weight for _, weight in part["mixture"]]
        plan = plan_epochs(weights, part["total_steps"], part["global_batch"], part["virtual_epoch_samples"])
        for step, sign in ((begin, -1), (end, 1)):
            epoch = plan.epoch_of(step)
            before = plan.draws[epoch].tolist()
            if step == plan.step_ends[epoch]:
                so_far: list[float] = list(before)
            else:
                first, next_end = plan.step_ends[epoch : epoch + 2].tolist()
                share = (step - first) / (next_end - first)
                after = plan.draws[epoch + 1].tolist()
                so_far = [low + (high - low) * share for low, high in zip(before, after, strict=True)]
                if len(names) > 1:
                    inexact |= {name for name, low, high in zip(names, before, after, strict=True) if low != high}
            for name, count in zip(names, so_far, strict=True):
                samples[name] += sign * count
                tokens[name] += sign * count * part["seq_len"]
    return {name: Drawn(samples[name], tokens[name], name not in inexact) for name in samples}


def _parts(
    fields: Mapping[str, Any], changes: list[dict[str, Any]], steps: int
) -> Iterator[tuple[Mapping[str, Any], int, int]]:
    """The stretches of a phase that were drawn under one set of fields, newest first: (fields, first step, end)."""
    for change in reversed(changes):
        yield fields, change["step"], steps
        steps = change["step"]
        fields = {**fields, **{name: was for name, (was, _) in change["changed"].items()}}
    yield fields, 0, steps


def _is_before(resumed: dict[str, Any] | None, names: list[str], record: checkpoint.Record) -> bool:
    """Whether a start that resumed there trained any step of the checkpoint."""
    if resumed is None:
        return True
    return resumed["phase"] in names and (names.index(resumed["phase"]), resumed["step"]) < (record.phase, record.step)


def _asked(command: list[str]) -> argparse.Namespace:
    """The overrides and the starting weights of a recorded command."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--load", type=Path)
    return parser.parse_known_args(command[1:])[0]


def shown(name: str) -> str:
    """A hub name as it is; of a path the last part, which means the same on every machine."""
    is_path = PurePath(name).is_absolute() or name.startswith((".", "~")) or Path(name).exists()
    return PurePath(name).name if is_path else name


def _shown_setting(text: str) -> str:
    key, equals, value = text.partition("=")
    return f"{key}{equals}{shown(value)}" if "/" in value else text
