"""Trains the phases of a run one after the other, from wherever the run stands."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from composer import DataSpec
from composer.utils import dist, reproducibility

from corpus.base.errors import UserError
from training.data.arrangement import Arrangement
from training.model.shapes import flops_per_token, parameter_count
from training.run import checkpoint
from training.run.callbacks.buckets import SettleBuckets
from training.run.callbacks.checkpointing import Checkpointer, SaveRules, Start
from training.run.callbacks.guard import StepGuard
from training.run.callbacks.metrics import StepFacts, StepMetrics, samples_digest, short
from training.run.callbacks.schedule import LearningRate
from training.run.callbacks.tracking import WeightsAndBiases
from training.run.composer_model import TARGETS, TrainingModel
from training.run.folder import RunFolder, latest_checkpoint, read_metrics
from training.run.optimizer import build_optimizer
from training.run.options import Options
from training.run.parallel import ParallelTrainer, ShardedGradients, parallelism_config, recomputes
from training.run.passes import choose, precision_of
from training.run.peak import peak_of
from training.run.phase_loader import phase_loader
from training.run.phase_teacher import build_distiller
from training.run.phases import Phase
from training.run.plotting import draw
from training.run.ranks import StopSignal, on_first
from training.run.standing import Standing, last_steps, nothing_left, run_name, stand
from training.run.starting_weights import StartingWeights, check_weights, find_weights
from training.run.world import world_size

DIST_SECONDS = 1800.0
"""Longest wait for another process: saving 1.5 B parameters to a slow shared disk takes minutes."""

COMPILE: dict[str, Any] = {"dynamic": False}
"""Arguments of torch.compile. Left to itself it makes code for any batch as soon as it has seen two sizes; one is
trained on."""


KNOWN_WARNINGS: tuple[tuple[type[Warning], str, str], ...] = (
    (FutureWarning, "", r"(composer|torch\.distributed|torch\.cuda\.amp)(\.|$)"),
    (UserWarning, "No device id is provided", r"torch\.distributed"),
    (UserWarning, ".*using GPU .* as device used by this process is currently unknown", r"torch\.distributed"),
)
"""Category, message and module of what Composer and torch say of themselves, in every process, and no user can mend."""


def quieten() -> None:
    """Leave out KNOWN_WARNINGS, and nothing else that a library has to say."""
    for category, message, module in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)


def run(options: Options, phases: list[Phase], stop: StopSignal) -> None:
    """Train `phases` until the last step, `--until` or a stop signal; raises UserError."""
    stop.listen()
    quieten()
    if options.deterministic:
        # Here and not by the Trainer: cuBLAS reads its part of it at its first product, in the search for passes.
        reproducibility.configure_deterministic_mode()
    device = "gpu" if torch.cuda.is_available() else "cpu"
    if world_size() > 1 or options.parallel == "fsdp2":
        dist.initialize_dist(device, DIST_SECONDS)
    folder = RunFolder(options.out / run_name(options, phases))
    standing, weights = on_first(lambda: _open(folder, options, phases))
    ends = last_steps(phases, options.until)
    if standing.is_done(ends):
        if dist.get_global_rank() == 0:
            print(nothing_left(folder, standing), flush=True)
        folder.unlock()
        return
    start = _start(phases, standing, weights)
    for phase in phases[standing.phase :]:
        if start.step >= ends[phase.index] or stop.reached_any():
            break
        # The run's records are written when all else of the start is done, so that a refused one changes nothing.
        begin = partial(_begin, folder, options, phases, phase, standing, weights)
        before = sum(phase.steps for phase in phases[: phase.index])
        if not _train(options, phase, folder, start, ends[phase.index], stop, device, begin, before):
            break
        start = Start(on_first(lambda: latest_checkpoint(folder.root)), None, _carries(phases, phase.index + 1))
    on_first(lambda: _finish(folder, phases))


def _start(phases: list[Phase], standing: Standing, weights: StartingWeights | None) -> Start:
    """What the phase that comes next starts from."""
    if standing.path is None:
        return Start(weights.path, None, weights.optimizer and _carries(phases, 0)) if weights else Start()
    if standing.step:
        return Start(standing.path, standing.record)
    return Start(standing.path, None, _carries(phases, standing.phase))


def _carries(phases: list[Phase], index: int) -> bool:
    return index < len(phases) and phases[index].recipe.training.carry_optimizer


def _open(folder: RunFolder, options: Options, phases: list[Phase]) -> tuple[Standing, StartingWeights | None]:
    """Rank 0's part of a start: lock the run, find its newest intact checkpoint or what --load names, check both."""
    folder.lock()
    found = checkpoint.newest_good(folder.checkpoints, lambda text: print(f"warning: {text}", flush=True))
    standing = stand(folder, options, phases, found)
    weights = None
    if options.load and not found:
        weights = find_weights(options.load)
        check_weights(weights, phases[0], options.load, allow=options.allow_changed_model)
    return standing, weights


def _begin(
    folder: RunFolder,
    options: Options,
    phases: list[Phase],
    phase: Phase,
    standing: Standing,
    weights: StartingWeights | None,
) -> None:
    """Rank 0 records, with the first phase this command trains, its start, and with each the phase's data."""
    if phase.index == standing.phase:
        loaded = None
        if weights and options.load:
            differs = check_weights(weights, phase, options.load, allow=options.allow_changed_model)
            loaded = {"path": str(options.load), "model": weights.model and weights.model.name, "changed": differs}
            for name, (was, now) in differs.items():
                print(f"note: {name} is {was} in the weights loaded, {now} in {phase.name}", flush=True)
            if weights.model is None:
                print(f"note: {options.load} does not say how its model computes; taken as {phase.name}'s", flush=True)
        for line in standing.notes():
            print(f"note: {line}", flush=True)
        folder.start(options, phases, standing.phase, {**standing.facts(), "loaded": loaded})
        folder.truncate_metrics(*standing.last)
    folder.enter_phase(phase, options.data)


def _finish(folder: RunFolder, phases: list[Phase]) -> None:
    rows = read_metrics(folder.root) if folder.metrics.is_file() else []
    if not rows:
        print("stopped before the first step; the same command begins it", flush=True)
    else:
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
    options: Options,
    phase: Phase,
    folder: RunFolder,
    start: Start,
    last_step: int,
    stop: StopSignal,
    device: str,
    begin: Callable[[], None],
    before: int,
) -> bool:
    """Train one phase up to `last_step`; False when the run ends before the phase does.

    `begin` runs on rank 0 when the phase is ready for its first step. `before` is the steps of the phases before.
    """
    recipe, training = phase.recipe, phase.recipe.training
    kind = "cuda" if device == "gpu" else "cpu"
    place = torch.device(kind, dist.get_local_rank()) if kind == "cuda" else torch.device(kind)
    distiller = build_distiller(phase, place, sharded=options.parallel == "fsdp2")
    # The teacher may have drawn random numbers while it was made.
    reproducibility.seed_all(recipe.seed)
    model = TrainingModel(phase.model, tuple(phase.manifest.sources), distiller)
    again = recomputes(options, phase, place)
    model.model.recompute_blocks(again)
    passes = choose(options, phase, model, place, start.record)
    loader = phase_loader(options, phase)
    dataset: Any = loader.dataset
    arrangement = Arrangement(dataset)
    peak = peak_of(place)
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
        steps_before=before,
    )
    guard = StepGuard(training)
    saver = Checkpointer(
        phase,
        folder,
        start,
        SaveRules(options.save_interval, options.keep, last_step, options.keep_every, options.save_minutes),
        stop,
        guard.rule,
        passes,
        lambda step: samples_digest([arrangement.step(step)]) if step < phase.steps else None,
    )
    if dist.get_global_rank() == 0:
        if start.path and not start.record:
            what = "weights and optimiser" if start.optimizer else "weights"
            print(f"{phase.name}: starting from {what} of {start.path}")
        print(
            f"{phase.name}: size {phase.model.name}, {parameter_count(phase.model):,} parameters, "
            f"{recipe.tokens:,} tokens in {phase.steps:,} steps of {training.global_batch} x {recipe.seq_len}, "
            f"{world_size()} process(es), {passes.sequences} sequences per pass{passes.note and f' ({passes.note})'}"
            f"{', activations checkpointed' if again else ''}\n"
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
            SettleBuckets(passes.sequences, recipe.seq_len, recipe.document_mask),
        ],
        loggers=[WeightsAndBiases(folder.root, options.wandb_project, before)] if options.wandb else [],
        device=device,
        precision=precision_of(options, place),
        device_train_microbatch_size=passes.sequences,
        parallelism_config=parallelism_config(options.parallel),
        compile_config=COMPILE if options.compile else None,
        # Composer adds the rank, and takes no seed of 2^32 or more.
        seed=min(recipe.seed, 2**32 - world_size()),
        run_name=folder.root.name,
        dist_timeout=DIST_SECONDS,
        progress_bar=False,
        spin_dataloaders=False,
    )
    try:
        on_first(begin)
        trainer.fit()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device's memory does not hold {passes.sequences} sequences per pass: {str(error).splitlines()[0]}",
            where="--device-batch",
            fix="Give a smaller number; the same command then goes on from the last checkpoint.",
        ) from None
    finally:
        trainer.close()
        dataset.close()
    del trainer, model, distiller
    gc.collect()
    return last_step == phase.steps and not saver.paused_by_signal


def _tokens(batch: dict[str, torch.Tensor]) -> int:
    return batch[TARGETS].numel()
