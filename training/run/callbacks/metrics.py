"""Metrics of every step: a JSON line, TensorBoard, a console line each interval, the digest of the batch's samples."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any

import numpy as np
import xxhash
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from corpus.base.errors import UserError
from corpus.base.files import write_json
from training.run.callbacks.guard import StepGuard, Verdict
from training.run.composer_model import SOURCES, training_model
from training.run.folder import RunFolder
from training.run.peak import Peak

SCALARS = ("loss", "ce", "kd", "lr", "grad_norm", "skips", "tokens_per_s", "mfu", "data_wait")
"""Fields of a row that TensorBoard and Weights & Biases get; ce and kd are there only with a teacher."""


def samples_digest(samples: Sequence[np.ndarray]) -> str:
    """XXH3-128 of a global batch's sample numbers, sorted, so that it does not depend on how processes share them."""
    return xxhash.xxh3_128_hexdigest(np.sort(np.concatenate(samples)).astype("<i8").tobytes())


@dataclass(frozen=True)
class StepFacts:
    """What the metrics need to know of a phase."""

    phase: int
    recipe: str
    steps: int
    sources: tuple[str, ...]
    tokens_per_step: int
    flops_per_token: int
    peak: Peak
    log_interval: int
    next_batch: str | None
    """Digest that the first batch must have, from the checkpoint resumed from; None at a phase's start."""
    resumed_step: int
    steps_before: int
    """Steps of the phases before: TensorBoard counts over all."""


class StepMetrics(Callback):
    """Measures, writes and prints each optimiser step; reports the bad ones, and stops the run where they should."""

    def __init__(self, facts: StepFacts, run: RunFolder, guard: StepGuard) -> None:
        self.facts, self.run, self.guard = facts, run, guard
        self.lead = dist.get_global_rank() == 0
        self.digest = ""
        self._waiting_since = self._step_since = 0.0
        self._wait = 0.0
        self._window: list[dict[str, Any]] = []
        self._file: IO[str] | None = None
        self._board: Any = None
        self._bar: Any = None

    def fit_start(self, state: State, logger: Logger) -> None:
        """Open the outputs."""
        facts = self.facts
        self._step_since = time.perf_counter()
        if not self.lead:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._file = self.run.metrics.open("a", encoding="utf-8")
        folder = self.run.tensorboard / f"phase{facts.phase:02d}-{facts.recipe}"
        self._board = SummaryWriter(str(folder), purge_step=facts.steps_before + facts.resumed_step + 1)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=facts.steps, initial=facts.resumed_step, unit="step", desc=facts.recipe)

    def before_dataloader(self, state: State, logger: Logger) -> None:
        """The loop starts to wait for a batch."""
        self._waiting_since = time.perf_counter()

    def after_dataloader(self, state: State, logger: Logger) -> None:
        """A batch has come: note the wait."""
        self._wait = time.perf_counter() - self._waiting_since

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Note the samples of all processes; after a resume check them, before the optimiser learns from them."""
        assert self.guard.gathered is not None
        self.digest = samples_digest([self.guard.gathered.ids.ravel()])
        facts = self.facts
        if facts.next_batch is None or state.timestamp.batch.value != facts.resumed_step:
            return
        same = self.digest == facts.next_batch
        if self.lead:
            print(f"resumed at step {facts.resumed_step}, next batch identical: {'yes' if same else 'no'}", flush=True)
        if not same:
            raise UserError(
                "the loader drew other samples than the checkpoint expects", where=str(self.run.root),
                fix="Check the streams under --data: python -m corpus.inspect DATA/RECIPE --verify.",
            )  # fmt: skip

    def batch_end(self, state: State, logger: Logger) -> None:
        """Write the step's row; of a bad step write the batch's samples too, and stop or go on as the recipe says."""
        now = time.perf_counter()
        seconds, self._step_since = now - self._step_since, now
        facts, step = self.facts, state.timestamp.batch.value
        verdict = self.guard.verdict
        assert verdict is not None
        loss = verdict.loss
        row: dict[str, Any] = {
            "phase": facts.phase,
            "recipe": facts.recipe,
            "step": step,
            "tokens": step * facts.tokens_per_step,
            "loss": _number(loss),
            "lr": state.optimizers[0].param_groups[0]["lr"],
            "grad_norm": _number(verdict.grad_norm),
            "skips": self.guard.rule.skips,
            "tokens_per_s": facts.tokens_per_step / seconds,
            "mfu": facts.tokens_per_step * facts.flops_per_token / seconds / (facts.peak.flops * dist.get_world_size()),
            "data_wait": min(1.0, self._wait / seconds),
            "seconds": seconds,
            "samples": self.digest,
        } | self._losses(state)
        if verdict.problem:
            row["skipped"] = verdict.problem
        if self.lead:
            try:
                self._write(row)
            except OSError as error:
                raise UserError(
                    f"the metrics of step {step} cannot be written: {error.strerror or error}",
                    where=str(self.run.root),
                    fix="Free some space and run the same command again; the checkpoints are untouched.",
                ) from None  # fmt: skip
        logger.log_metrics({f"train/{key}": float(row[key]) for key in SCALARS if key in row}, step=step)
        if verdict.problem:
            self._report(state, step, verdict)

    def _losses(self, state: State) -> dict[str, Any]:
        """Cross-entropy of each source, and with a teacher the step's two terms: `ce`, and `kd` before weighting."""
        model, gathered = training_model(state), self.guard.gathered
        assert gathered is not None
        totals, kd, counts = (part.sum(axis=0).tolist() for part in (gathered.loss, gathered.kd, gathered.samples))
        sources = {
            name: _number(loss / count)
            for name, loss, count in zip(model.sources, totals, counts, strict=True)
            if count
        }
        if model.distiller is None:
            return {"sources": sources}
        return {"ce": _number(sum(totals) / sum(counts)), "kd": _number(sum(kd) / sum(counts)), "sources": sources}

    def _write(self, row: dict[str, Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        assert self._file is not None
        # The line must be in the kernel's hands before this step's checkpoint: a resumed run only cuts rows off.
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        step = row["step"]
        scalars = {f"train/{key}": row[key] for key in SCALARS if key in row}
        scalars |= {f"source_loss/{name}": value for name, value in row["sources"].items()}
        # One event with all of them: add_scalar writes one for each, and takes most of the time of a row for it.
        values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in scalars.items()]
        self._board.file_writer.add_summary(Summary(value=values), self.facts.steps_before + step)
        self._window.append(row)
        if self._bar is not None:
            self._bar.update(1)
        first = step == self.facts.resumed_step + 1
        if first or step % self.facts.log_interval == 0 or step == self.facts.steps:
            self._print(row)
            self._window.clear()

    def _print(self, row: dict[str, Any]) -> None:
        window, facts = self._window, self.facts
        seconds = sum(each["seconds"] for each in window)
        rate = facts.tokens_per_step * len(window) / seconds
        mfu = rate * row["mfu"] / row["tokens_per_s"]
        wait = sum(each["data_wait"] * each["seconds"] for each in window) / seconds
        # The first step of a start also paid for starting up (and compiling): no estimate from it.
        first = row["step"] == facts.resumed_step + 1
        left = "-" if first else timedelta(seconds=round((facts.steps - row["step"]) * seconds / len(window)))
        line = (
            f"{facts.recipe} step {row['step']}/{facts.steps}  loss {float(row['loss']):.4f}  lr {row['lr']:.3e}  "
            f"tokens {short(row['tokens'])}  {short(rate)} tok/s  mfu {mfu:.1%}  data wait {wait:.1%}  eta {left}"
        )
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def _report(self, state: State, step: int, verdict: Verdict) -> None:
        facts, rule, name = self.facts, self.guard.rule, f"bad-batch-phase{self.facts.phase:02d}-step{step:09d}.json"
        assert self.guard.gathered is not None
        sources = list(dist.all_gather(state.device.tensor_to_device(state.batch[SOURCES])))
        if self.lead:
            ranks = [
                [{"sample": i, "source": facts.sources[s]} for i, s in zip(ids.tolist(), which.tolist(), strict=True)]
                for ids, which in zip(self.guard.gathered.ids, sources, strict=True)
            ]
            problem = verdict.problem
            write_json(self.run.root / name, {"step": step, "problem": problem, "digest": self.digest, "ranks": ranks})
        what = f"{verdict.problem} at step {step}; the batch's samples are in {name}"
        if not verdict.stop:
            if self.lead:
                print(
                    f"{facts.recipe}: skipped ({rule.skips} of at most {rule.settings.max_skips}): {what}", flush=True
                )
            return
        more = "bad_loss.action=skip" if rule.settings.action == "stop" else "bad_loss.max_skips=..."
        raise UserError(
            what, where=str(self.run.root),
            fix=f"The last checkpoint is from before it: run again with --set {more}, or with a lower optimizer.lr.",
        )  # fmt: skip

    def close(self, state: State, logger: Logger) -> None:
        """Close the outputs."""
        for output in (self._file, self._board, self._bar):
            if output is not None:
                # On a full disk the step's error has been raised; what is buffered still cannot be written.
                with contextlib.suppress(OSError):
                    output.close()
        self._file = self._board = self._bar = None


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else str(value)


def short(value: float) -> str:
    """A count with a unit letter: 1234567 -> 1.23M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f}{unit}"
    return f"{value:.0f}"
