"""Trains the phases of a run one after the other, from wherever the run stands."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import torch
from composer import DataSpec
from composer.utils import dist, reproducibility

from training.data.arrangement import Arrangement
from training.model.shapes import flops_per_token, parameter_count
from training.run import checkpoint
from training.run.callbacks.buckets import SettleBuckets
from training.run.callbacks.checkpointing import Checkpointer, SaveRules, Start
from training.run.callbacks.guard import StepGuard
from training.run.callbacks.metrics import StepFacts, StepMetrics, samples_digest, short
from training.run.callbacks.schedule import LearningRate
from training.run.checkpoint import Record
from training.run.composer_model import TARGETS, TrainingModel
from training.run.folder import RunFolder, latest_checkpoint, read_metrics
from training.run.optimizer import build_optimizer
from training.run.options import Options
from training.run.parallel import ParallelTrainer, ShardedGradients, parallelism_config
from training.run.peak import peak_of
from training.run.phase_loader import phase_loader
from training.run.phase_teacher import build_distiller
from training.run.phases import Phase
from training.run.plotting import draw
from training.run.ranks import StopSignal, on_first
from training.run.starting_weights import StartingWeights, check_weights, find_weights
from training.run.world import microbatch, world_size

DIST_SECONDS = 1800.0
"""Longest wait for another process: saving 1.5 B parameters to a slow shared disk takes minutes."""

COMPILE: dict[str, Any] = {"dynamic": False}
"""Arguments of torch.compile. Left to itself it makes code for any batch as soon as it has seen two sizes, which a
search for the microbatch and DDP's first pass (SettleBuckets) both show it; one size is trained on."""


def run(options: Options, phases: list[Phase]) -> None:
    """Train `phases` until the last step, `--until` or SIGTERM; raises UserError."""
    stop = StopSignal()
    # Known, harmless, and repeated by every process: Composer about its own imports, torch about gloo and DDP.
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    if world_size() > 1 or options.parallel == "fsdp2":
        dist.initialize_dist(device, DIST_SECONDS)
    folder = RunFolder(options.out / run_name(options, phases))
    found, weights = on_first(lambda: _open(folder, options, phases))
    ends = last_steps(phases, options.until)
    first, start = position(phases, found, weights)
    if dist.get_global_rank() == 0 and (first == len(phases) or start.step >= ends[first]):
        print(f"nothing left to train: {folder.root} is where this command ends", flush=True)
    for phase in phases[first:]:
        if start.step >= ends[phase.index] or not _train(
            options, phase, folder, start, ends[phase.index], stop, device
        ):
            break
        start = Start(on_first(lambda: latest_checkpoint(folder.root)), None, _carries(phases, phase.index + 1))
    on_first(lambda: _finish(folder, phases))


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


def position(
    phases: list[Phase], found: tuple[Path, Record] | None, weights: StartingWeights | None
) -> tuple[int, Start]:
    """The phase that comes next (one past the last when all are done) and what it starts from."""
    if found is None:
        if weights is None:
            return 0, Start()
        return 0, Start(weights.path, None, weights.optimizer and _carries(phases, 0))
    path, record = found
    if record.finished:
        return record.phase + 1, Start(path, None, _carries(phases, record.phase + 1))
    return record.phase, Start(path, record)


def _carries(phases: list[Phase], index: int) -> bool:
    return index < len(phases) and phases[index].recipe.training.carry_optimizer


def _open(
    folder: RunFolder, options: Options, phases: list[Phase]
) -> tuple[tuple[Path, Record] | None, StartingWeights | None]:
    """Rank 0's part of a start: lock the run, find its newest intact checkpoint or what --load names, record this."""
    folder.lock()
    found = checkpoint.newest_good(folder.checkpoints, lambda text: print(f"warning: {text}", flush=True))
    record = found[1] if found else None
    weights = loaded = None
    if options.load and not record:
        weights = find_weights(options.load)
        differs = check_weights(weights, phases[0], options.load, allow=options.allow_changed_model)
        loaded = {"path": str(options.load), "model": weights.model and weights.model.name, "changed": differs}
        for name, (was, now) in differs.items():
            print(f"note: {name} is {was} in the weights loaded, {now} in {phases[0].name}", flush=True)
        if weights.model is None:
            print(f"note: {options.load} does not say how its model computes; taken as {phases[0].name}'s", flush=True)
    changes = folder.start(options, phases, {"phase": record.recipe, "step": record.step} if record else None, loaded)
    for change in changes:
        print(f"note: changed since the last start: {change}", flush=True)
    folder.truncate_metrics(record.phase if record else 0, record.step if record else 0)
    return found, weights


def _finish(folder: RunFolder, phases: list[Phase]) -> None:
    rows = read_metrics(folder.root)
    if rows:
        draw({folder.root.name: rows}, folder.plot)
        first, last = rows[0], rows[-1]
        total = phases[last["phase"]].steps
        print(
            f"{last['recipe']}: step {last['step']} of {total}, {short(last['tokens'])} tokens, "
            f"loss {float(first['loss']):.4f} -> {float(last['loss']):.4f}"
        )
        if last["step"] < total:
            print("stopped before the end; the same command goes on from here")
        print(f"metrics {folder.metrics}, plot {folder.plot}, checkpoints {folder.checkpoints}", flush=True)
    folder.unlock()


def _train(
    options: Options, phase: Phase, folder: RunFolder, start: Start, last_step: int, stop: StopSignal, device: str
) -> bool:
    """Train one phase up to `last_step`; False when the run ends before the phase does."""
    recipe, training = phase.recipe, phase.recipe.training
    on_first(lambda: folder.enter_phase(phase, options.data))
    kind = "cuda" if device == "gpu" else "cpu"
    place = torch.device(kind, dist.get_local_rank()) if kind == "cuda" else torch.device(kind)
    distiller = build_distiller(phase, place, sharded=options.parallel == "fsdp2")
    # The teacher may have drawn random numbers while it was made.
    reproducibility.seed_all(recipe.seed)
    model = TrainingModel(phase.model, tuple(phase.manifest.sources), distiller)
    per_pass = microbatch(options, phase, kind)
    loader = phase_loader(options, phase)
    dataset: Any = loader.dataset
    arrangement = Arrangement(dataset)
    peak = peak_of(torch.device(kind))
    facts = StepFacts(
        phase=phase.index,
        recipe=phase.name,
        steps=phase.steps,
        sources=model.sources,
        tokens_per_step=training.global_batch * recipe.seq_len,
        flops_per_token=flops_per_token(phase.model, recipe.seq_len),
        peak=peak,
        log_interval=options.log_interval,
        next_batch=start.record.next_batch if start.record and not options.allow_changed_data else None,
        resumed_step=start.step,
    )
    guard = StepGuard(training)
    saver = Checkpointer(
        phase,
        folder,
        start,
        SaveRules(options.save_interval, options.keep, last_step),
        stop,
        guard.rule,
        lambda step: samples_digest([arrangement.step(step)]) if step < phase.steps else None,
    )
    if dist.get_global_rank() == 0:
        if start.path and not start.record:
            what = "weights and optimiser" if start.optimizer else "weights"
            print(f"{phase.name}: starting from {what} of {start.path}")
        print(
            f"{phase.name}: size {phase.model.name}, {parameter_count(phase.model):,} parameters, "
            f"{recipe.tokens:,} tokens in {phase.steps:,} steps of {training.global_batch} x {recipe.seq_len}, "
            f"{world_size()} process(es), {per_pass} sequences per pass\n"
            f"peak for MFU: {peak.flops / 1e12:.3g} TFLOP/s per device ({peak.note})",
            flush=True,
        )
    trainer = ParallelTrainer(
        model=model,
        optimizers=build_optimizer(model, training.optimizer, kind),
        train_dataloader=DataSpec(loader, num_samples=recipe.samples, get_num_tokens_in_batch=_tokens),
        # In batches: one is one optimiser step of a fixed number of tokens, so this is the token budget, and pausing,
        # resuming and the schedule all count the same whole number.
        max_duration=f"{last_step}ba",
        callbacks=[
            LearningRate(training, phase.steps),
            *([ShardedGradients()] if options.parallel == "fsdp2" else []),
            guard,
            StepMetrics(facts, folder, guard),
            saver,
            SettleBuckets(per_pass, recipe.seq_len),
        ],
        loggers=_loggers(options, folder),
        device=device,
        precision=options.precision or ("amp_bf16" if kind == "cuda" else "fp32"),
        device_train_microbatch_size=per_pass,
        parallelism_config=parallelism_config(options.parallel),
        compile_config=COMPILE if options.compile else None,
        seed=recipe.seed,
        run_name=folder.root.name,
        dist_timeout=DIST_SECONDS,
        progress_bar=False,
        spin_dataloaders=False,
    )
    try:
        trainer.fit()
    finally:
        trainer.close()
        dataset.close()
    del trainer, model, distiller
    gc.collect()
    return last_step == phase.steps and not saver.paused_by_signal


def _tokens(batch: dict[str, torch.Tensor]) -> int:
    return batch[TARGETS].numel()


def _loggers(options: Options, folder: RunFolder) -> list[Any]:
    if not options.wandb:
        return []
    from composer.loggers import WandBLogger

    name = folder.root.name
    return [
        WandBLogger(
            project="mobilecorpus", name=name, init_kwargs={"id": name, "resume": "allow", "dir": str(folder.root)}
        )
    ]
