"""Runs a teacher over the streams of a build and writes its top k beside them, a shard at a time, by many processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.base.errors import UserError
from corpus.records.manifest import Manifest
from training.base.progress_bar import Progress
from training.data.samples import StreamSamples
from training.distillation.cache import TeacherRecord, missing_shards, shard_writer, write_record
from training.distillation.identity import TeacherIdentity

if TYPE_CHECKING:
    from training.data.loader import Collator
    from training.distillation.teacher import OnlineTeacher


LOGITS_AT_ONCE = 1024
"""Tokens whose float32 logits exist at once."""


def plan(
    manifest: Manifest, build: Path, document_mask: bool, identity: TeacherIdentity, k: int, temperature: float
) -> list[tuple[Path, TeacherRecord]]:
    """Every stream of the build once, with the record its cache will have."""
    plans: dict[Path, TeacherRecord] = {}
    for source in manifest.sources.values():
        stream = build / source.stream
        plans[stream] = TeacherRecord(
            stream_fingerprint=source.stream_fingerprint, teacher=identity, k=k, temperature=temperature,
            document_mask=document_mask, vocab_size=manifest.tokenizer.vocab_size, seq_len=manifest.seq_len,
            shards=StreamSamples(stream).shard_samples,
        )  # fmt: skip
    return list(plans.items())


def load_teacher(name: str, vocab_size: int, tokenizer: Path) -> OnlineTeacher:
    """The teacher on this process's GPU, or on the CPU where there is none."""
    import torch

    from training.distillation.teacher import OnlineTeacher

    place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return OnlineTeacher(name, vocab_size=vocab_size, device=torch.device(place), tokenizer=tokenizer)


def write(
    plans: list[tuple[Path, TeacherRecord]], manifest: Manifest, load: Callable[[], OnlineTeacher], batch: int
) -> None:
    """Write this process's share of the shards that are missing, and the records of the streams that are then whole.

    `load` makes the OnlineTeacher, and is called only when there is something to do.
    """
    todo = [(stream, record, shard) for stream, record in plans for shard in missing_shards(record, stream)]
    needed = sum(record.bytes_of(record.shards[shard]) for _, record, shard in todo)
    if todo:
        free = shutil.disk_usage(todo[0][0]).free
        print(f"{len(todo)} shards to write, {needed / 1e9:.3g} GB", flush=True)
        if needed > free:
            raise UserError(
                f"needs {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free", where=str(plans[0][0].parent),
                fix="Use a smaller --top-k, or free some space.",
            )  # fmt: skip
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    mine = todo[rank::world]
    if mine:
        teacher = load()
        collator = _collator(manifest, plans[0][1].document_mask)
        with Progress("teacher", sum(record.shards[shard] for _, record, shard in mine), "samples") as progress:
            for stream, record, shard in mine:
                _write_shard(stream, record, shard, teacher, collator, batch, progress)
    for stream, record in plans:
        left = missing_shards(record, stream)
        if left:
            print(f"{stream.name}: {len(left)} shards left to other processes", flush=True)
        else:
            write_record(record, stream)
            print(f"{stream.name}: complete, {record.folder(stream)}", flush=True)


def _write_shard(
    stream: Path, record: TeacherRecord, shard: int, teacher: OnlineTeacher, collator: Collator, batch: int,
    progress: Progress,
) -> None:  # fmt: skip
    from training.distillation.loss import top_k_of

    rows = StreamSamples(stream).read(shard)
    with shard_writer(record, stream, shard) as append:
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
