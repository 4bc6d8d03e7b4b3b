"""Runs a teacher over what a phase draws of its streams and writes its top k beside them, by many processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.recipe.model import Recipe
from corpus.records.manifest import Manifest
from training.base.progress_bar import Progress
from training.data.samples import StreamSamples
from training.distillation.cache import Run, TeacherRecord, fronts, missing_runs, run_writer, write_record
from training.distillation.identity import TeacherIdentity

if TYPE_CHECKING:
    from training.data.loader import Collator
    from training.distillation.teacher import OnlineTeacher


LOGITS_AT_ONCE = 1024
"""Tokens whose float32 logits exist at once."""


class Task(NamedTuple):
    """What is to be written of one stream."""

    stream: Path
    record: TeacherRecord
    front: NDArray[np.int64]
    """Samples at the front of each shard that the phase draws, shape (shards,)."""


def plan(
    recipe: Recipe, manifest: Manifest, build: Path, identity: TeacherIdentity, k: int, temperature: float
) -> list[Task]:
    """Every stream of the build once, with what the phase draws of it; `recipe` has its overrides."""
    streams = {name: build / source.stream for name, source in manifest.sources.items()}
    shards = {name: StreamSamples(stream).shard_samples for name, stream in streams.items()}
    drawn = fronts(recipe, manifest, shards)
    tasks = []
    for name, source in manifest.sources.items():
        record = TeacherRecord(
            stream_fingerprint=source.stream_fingerprint, teacher=identity, k=k, temperature=temperature,
            document_mask=recipe.document_mask, vocab_size=manifest.tokenizer.vocab_size, seq_len=manifest.seq_len,
            shards=shards[name],
        )  # fmt: skip
        tasks.append(Task(streams[name], record, drawn[name]))
    return tasks


def show(tasks: list[Task]) -> None:
    """Print what is there and what is missing, and what it will take."""
    for stream, record, front in tasks:
        missing = sum(run.end - run.begin for run in missing_runs(record, stream, front))
        print(f"{stream.name}: the phase draws {int(front.sum()):,} of {sum(record.shards):,} samples")
        tokens, size = missing * record.seq_len / 1e9, record.bytes_of(missing) / 1e9
        print(f"{stream.name}: {missing:,} samples to write, {tokens:.3g} B tokens, {size:.3g} GB")


def load_teacher(name: str, vocab_size: int, tokenizer: Path) -> OnlineTeacher:
    """The teacher on this process's GPU, or on the CPU where there is none."""
    import torch

    from training.distillation.teacher import OnlineTeacher

    place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return OnlineTeacher(name, vocab_size=vocab_size, device=torch.device(place), tokenizer=tokenizer)


def write(tasks: list[Task], manifest: Manifest, load: Callable[[], OnlineTeacher], batch: int) -> None:
    """Write this process's share of what is missing.

    Each shard belongs to one process, whatever is written already: the others' progress cannot shift the shares.
    `load` makes the OnlineTeacher, and is called only when there is something to do.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    todo: list[tuple[Task, Run]] = []
    first = 0
    for task in tasks:
        runs = missing_runs(task.record, task.stream, task.front)
        todo += [(task, run) for run in runs if (first + run.shard) % world == rank]
        first += len(task.front)
        if rank == 0:
            write_record(task.record, task.stream)
    needed = sum(task.record.bytes_of(run.end - run.begin) for task, run in todo)
    if todo:
        free = shutil.disk_usage(todo[0][0].stream).free
        print(f"{len(todo)} shards to write, {needed / 1e9:.3g} GB", flush=True)
        if needed * world > free:
            raise UserError(
                f"needs {needed * world / 1e9:.3g} GB, {free / 1e9:.3g} GB are free", where=str(tasks[0].stream.parent),
                fix="Use a smaller --top-k, or free some space.",
            )  # fmt: skip
        teacher = load()
        collator = _collator(manifest, tasks[0].record.document_mask)
        with Progress("teacher", sum(run.end - run.begin for _, run in todo), "samples") as progress:
            for task, run in todo:
                _write_run(task, run, teacher, collator, batch, progress)
    for task in tasks:
        left = len(missing_runs(task.record, task.stream, task.front))
        state = f"{left} shards left to other processes" if left else f"complete, {task.record.folder(task.stream)}"
        print(f"{task.stream.name}: {state}", flush=True)


def _write_run(
    task: Task, run: Run, teacher: OnlineTeacher, collator: Collator, batch: int, progress: Progress
) -> None:
    from training.distillation.loss import top_k_of

    record = task.record
    rows = StreamSamples(task.stream).read(run.shard)[run.begin : run.end]
    with run_writer(record, task.stream, run) as append:
        for start in range(0, len(rows), batch):
            samples = [{"ids": row, "sample_id": 0, "source": 0} for row in rows[start : start + batch]]
            logits_of = teacher({key: tensor.to(teacher.device) for key, tensor in collator(samples).items()})
            tokens = len(samples) * record.seq_len
            for first in range(0, tokens, LOGITS_AT_ONCE):
                logits = logits_of(slice(first, min(first + LOGITS_AT_ONCE, tokens)))
                append(top_k_of(logits, record.k, record.temperature))
            progress.advance(len(samples))


def _collator(manifest: Manifest, document_mask: bool) -> Collator:
    from training.data.loader import Collator

    facts, boundary = manifest.tokenizer, manifest.boundary
    return Collator(
        facts.bos_id if boundary != "eos" else None, facts.eos_id if boundary != "bos" else None, document_mask
    )
