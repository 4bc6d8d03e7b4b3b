"""`--dry-run`: what the command would train, and what it would take, worked out without data, torch or a GPU."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.base.errors import UserError
from training.data.elastic import legal_world_sizes
from training.model.memory import fixed_bytes, largest_microbatch, needs_recompute, sequence_bytes
from training.model.shapes import flops_per_token, parameter_count
from training.run.optimizer import lr_factor
from training.run.options import Options
from training.run.peak import memory_of, published
from training.run.phases import Phase, PlannedPhase

ASSUMED_MFU = 0.4
"""Share of the peak the time estimate supposes; the published runs of the family reach 0.23 to 0.67."""

PER_NODE = 8
"""Devices of a node in the list of legal numbers of processes."""


def report(options: Options, phases: Sequence[PlannedPhase]) -> str:
    """The whole dry run as text."""
    count, name, flops = hardware(options.gpus)
    model = phases[0].model
    worlds = common_worlds(phases)
    parameters = parameter_count(model)
    lines = [f"size {model.name}: {parameters:,} parameters"]
    # The size's own sequence length is that of its published pre-training; each phase has its recipe's.
    shape = {key: value for key, value in dataclasses.asdict(model).items() if value is not None and key != "seq_len"}
    lines += [f"  {key}: {value}" for key, value in shape.items()]
    for phase in phases:
        lines += ["", *_phase_lines(phase)]
    lines += ["", f"processes ({PER_NODE} per node): {', '.join(map(str, worlds))}"]
    if count not in worlds:
        lines.append(f"  {count} is not among them: it cannot share every phase's global batch evenly")
    capacity = memory_of(name)
    lines.append(f"on {count} x {name} ({options.parallel}), {flops / 1e12:.0f} TFLOP/s peak:")
    seconds = 0.0
    for phase in phases:
        fits = _fits(options, phase, count, capacity)
        lines.append(f"  memory, {phase.name}: {fits.text}")
        # Computing blocks again costs a forward pass, one of three parts; MFU does not count it.
        work = (
            phase.recipe.tokens * flops_per_token(phase.model, phase.recipe.seq_len) * (4 / 3 if fits.recompute else 1)
        )
        seconds += work / (ASSUMED_MFU * flops * count)
    lines += [
        f"  time: {_duration(seconds)}, supposing an MFU of {ASSUMED_MFU:.0%}",
        f"  checkpoint: {parameters * 12 / 1e9:.3g} GB each, {options.keep} kept",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Fit:
    recompute: bool
    """Activations are checkpointed, as given or as `auto` would have it."""
    text: str


def _fits(options: Options, phase: PlannedPhase, count: int, capacity: int | None) -> _Fit:
    """Which microbatch the devices hold, and what it takes."""
    model, seq_len = phase.model, phase.recipe.seq_len
    shards = count if options.parallel == "fsdp2" else 1
    bf16 = options.precision != "fp32"
    memory = (capacity or math.inf) * 1e9
    recompute = options.checkpoint_activations == "on"
    if options.checkpoint_activations == "auto":
        recompute = needs_recompute(model, seq_len, memory, shards=shards, bf16=bf16)
    per_device = max(1, phase.recipe.training.global_batch // count)
    if options.device_batch != "auto":
        per_device = min(per_device, options.device_batch)
    how = "activations checkpointed" if recompute else "activations kept"
    most = largest_microbatch(model, seq_len, per_device, memory, recompute=recompute, shards=shards, bf16=bf16)
    fixed = fixed_bytes(model, max(1, most) * seq_len, shards=shards, bf16=bf16) / 1e9
    each = sequence_bytes(model, seq_len, recompute=recompute, bf16=bf16) / 1e9
    parts = f"{fixed:.3g} GB and {each:.3g} GB per sequence of {seq_len:,} ({how})"
    if capacity is None:
        return _Fit(recompute, f"{parts}; the device's memory is not known")
    room = f"of {capacity} GB per device"
    if most == 0:
        hint = " or --parallel fsdp2" if shards == 1 and count > 1 else ""
        less = "" if recompute else "--checkpoint-activations on, "
        return _Fit(recompute, f"{parts}: not one sequence fits, {room}; use {less}a larger device{hint}")
    return _Fit(recompute, f"{parts}: {most} of {per_device} at once, {fixed + most * each:.3g} GB {room}")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    for size, unit in ((86_400, "days"), (3_600, "hours")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 60:.3g} minutes"


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
