"""Write a teacher's top-k log-probabilities beside the streams: `python -m training.teacher RECIPE --top-k K`."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.base.errors import UserError, command
from corpus.recipe.model import load_recipe
from corpus.records.manifest import Manifest, load_manifest
from training.base.progress_bar import Progress
from training.data.samples import StreamSamples
from training.distillation.cache import TeacherRecord, missing_shards, shard_writer, write_record
from training.distillation.identity import TeacherIdentity, check_vocabulary, identify, teacher_folder

if TYPE_CHECKING:
    from training.data.loader import Collator
    from training.distillation.teacher import OnlineTeacher

LOGITS_AT_ONCE = 1024
"""Tokens whose float32 logits exist at once."""


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.teacher`; under torchrun the processes share the shards out among them."""
    args = _arguments(argv)
    if args.batch < 1 or (args.top_k is not None and args.top_k < 1):
        raise UserError("must be at least 1", where="--batch" if args.batch < 1 else "--top-k")
    recipe = load_recipe(args.recipe)
    build = args.data / recipe.name
    manifest = load_manifest(build)
    settings = recipe.training.distillation
    name = args.teacher or (settings.teacher if settings else None)
    k = args.top_k or (settings.top_k if settings else None)
    temperature = args.temperature or (settings.temperature if settings else 1.0)
    if name is None or k is None:
        flag = "--teacher" if name is None else "--top-k"
        raise UserError("the recipe does not say it", where=flag, fix=f"Add {flag}.")
    tokenizer = args.data / manifest.tokenizer.path / "tokenizer.json"
    vocab_size = manifest.tokenizer.vocab_size
    check_vocabulary(name, teacher_folder(name, weights=False), vocab_size, tokenizer)
    if k > vocab_size:
        raise UserError(f"{k} is more than the {vocab_size} ids there are", where="--top-k")
    folder = teacher_folder(name, weights=True)
    print(f"hashing the weights of {name}", flush=True)
    plans = _plan(manifest, build, recipe.document_mask, identify(name, folder), k, temperature)
    write(plans, manifest, functools.partial(_teacher, str(folder), vocab_size, tokenizer), args.batch)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.teacher",
        description="Run a teacher over every stream of a built recipe and keep its k most likely tokens per position, "
        "for training with distillation.cache. The same command again goes on where it was stopped; "
        "torchrun --nproc-per-node N -m training.teacher shares the shards out to N GPUs.",
    )
    parser.add_argument("recipe", type=Path, help="the recipe's file")
    parser.add_argument("--teacher", help="hub name or local path (default: the recipe's distillation.teacher)")
    parser.add_argument("--top-k", type=int, metavar="K", help="tokens kept (default: the recipe's distillation.top_k)")
    parser.add_argument("--temperature", type=float, help="of the softmax (default: the recipe's, else 1)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the builds (default: data)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="sequences per forward pass (default: 8)")
    return parser.parse_args(argv)


def _plan(
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


def _teacher(name: str, vocab_size: int, tokenizer: Path) -> OnlineTeacher:
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


if __name__ == "__main__":
    with command():
        main()
