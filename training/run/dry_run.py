"""`--dry-run`: what the command would train, and what it would take, worked out without data, torch or a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from corpus.base.errors import UserError
from training.data.elastic import legal_world_sizes
from training.model.shapes import flops_per_token, parameter_count
from training.run.optimizer import lr_factor
from training.run.options import Options
from training.run.peak import MEMORY, published
from training.run.phases import Phase, PlannedPhase

ASSUMED_MFU = 0.4
"""Share of the peak the time estimate supposes; the published runs of the family reach 0.23 to 0.67."""

PER_NODE = 8
"""Devices of a node in the list of legal numbers of processes."""

BYTES_PER_PARAMETER = 16
"""float32 weight, gradient and the two moments of Adam."""


def report(options: Options, phases: Sequence[PlannedPhase]) -> str:
    """The whole dry run as text."""
    count, name, flops = hardware(options.gpus)
    model = phases[0].model
    worlds = common_worlds(phases)
    parameters = parameter_count(model)
    lines = [f"size {model.name}: {parameters:,} parameters"]
    lines += [f"  {key}: {value}" for key, value in dataclasses.asdict(model).items() if value is not None]
    for phase in phases:
        lines += ["", *_phase_lines(phase)]
    lines += ["", f"processes ({PER_NODE} per node): {', '.join(map(str, worlds))}"]
    if count not in worlds:
        lines.append(f"  {count} is not among them: it cannot share every phase's global batch evenly")
    days = 0.0
    for phase in phases:
        days += (
            phase.recipe.tokens
            * flops_per_token(phase.model, phase.recipe.seq_len)
            / (ASSUMED_MFU * flops * count)
            / 86_400
        )
    shards = count if options.parallel == "fsdp2" else 1
    state = parameters * BYTES_PER_PARAMETER / shards / 1e9
    capacity = next((size for known, size in MEMORY.items() if known.lower() in name.lower()), None)
    room = f" of {capacity} GB" if capacity else ""
    lines += [
        f"on {count} x {name} ({options.parallel}), {flops / 1e12:.0f} TFLOP/s peak, assumed MFU {ASSUMED_MFU:.0%}:",
        f"  time: {days:.3g} days" if days >= 1 else f"  time: {days * 24:.3g} hours",
        f"  memory for weights, gradients and Adam: {state:.3g} GB{room} per device; activations come on top",
        f"  checkpoint: {parameters * 12 / 1e9:.3g} GB each, {options.keep} kept",
    ]
    return "\n".join(lines)


def common_worlds(phases: Sequence[PlannedPhase]) -> list[int]:
    """Numbers of processes that every phase can run on, with PER_NODE on each of several nodes."""
    each = [
        legal_world_sizes(phase.recipe.training.global_batch, phase.recipe.training.canonical_nodes, PER_NODE)
        for phase in phases
    ]
    return sorted(set(each[0]).intersection(*each[1:]))


def hardware(text: str) -> tuple[int, str, float]:
    """COUNTxNAME as (devices, name, peak FLOP/s of one); raises UserError."""
    count, times, name = text.partition("x")
    if not times or not count.isdigit() or int(count) < 1 or not name:
        raise UserError(f"'{text}' is not COUNTxNAME", where="--gpus", fix="Write e.g. 8xH100.")
    return int(count), name, published(name).flops


def _phase_lines(phase: PlannedPhase) -> list[str]:
    recipe = phase.recipe
    training, schedule = recipe.training, recipe.training.schedule
    optimizer = training.optimizer
    marks = sorted({1, max(1, schedule.warmup_steps), phase.steps // 2 or 1, phase.steps})
    rates = ", ".join(f"{mark:,}: {optimizer.lr * lr_factor(schedule, mark - 1, phase.steps):.3e}" for mark in marks)
    lines = [
        f"phase {phase.index + 1}: {recipe.name} ({phase.path})",
        f"  tokens: {recipe.tokens:,} = {phase.steps:,} steps of {training.global_batch:,} x {recipe.seq_len:,}",
        f"  schedule: {schedule.warmup_steps:,} steps of warm-up, then {schedule.kind} to {schedule.final_fraction:g}",
        f"  learning rate at step {rates}",
        f"  AdamW betas {optimizer.betas}, eps {optimizer.eps:g}, decay {optimizer.weight_decay:g}, "
        f"clip {optimizer.clip_norm}, seed {recipe.seed}",
    ]
    if isinstance(phase, Phase):
        entries = phase.manifest.sources.items()
        drawn = ", ".join(f"{name} {source.weight:.2%} ({source.epochs:.2f} epochs)" for name, source in entries)
        lines.append(f"  data: {phase.manifest.fingerprint[:12]}, {drawn}")
    else:
        drawn = ", ".join(f"{name} {share:.2%}" for name, share in recipe.shares().items())
        lines.append(f"  data: {drawn}; not built, run: {phase.build_command}")
    if training.distillation:
        teacher, cached = training.distillation.teacher, training.distillation.cache
        more = "" if cached else ": its time and memory come on top of the estimates below"
        lines.append(f"  distils from {teacher}{more}")
    if training.sizes and phase.model.name not in training.sizes:
        lines.append(f"  note: published for {', '.join(training.sizes)}")
    return lines
