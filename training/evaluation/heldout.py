"""Loss per source on samples that the run has never drawn, where a source has such samples left.

The first pass over a source visits its shards in a known order, so what a phase draws of it is, in every shard, the
first so many samples. Phases that read one stream leave the rest of each shard beyond the longest of these. A document
that is cut by a sample's end may still have its beginning on the drawn side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.base.files import read_json
from corpus.recipe.model import Recipe
from corpus.records.manifest import Manifest
from training.base.progress_bar import Progress
from training.data.loader import Collator
from training.data.mixture import Cycle, drawn_front, plan_epochs
from training.data.samples import StreamSamples
from training.evaluation.subject import Subject
from training.model.losses import cross_entropy

MOST_SHARDS = 16
"""Shards read per source: each is unpacked whole."""


@dataclass(frozen=True)
class Choice:
    """The samples to measure one source on."""

    rows: list[tuple[int, NDArray[np.int64]]]
    """(shard, samples of it) pairs."""
    seen: bool
    """The run has drawn them: it draws every sample of this source."""
    unseen: int
    """Samples of the source that the run never draws."""

    @property
    def count(self) -> int:
        """Samples chosen."""
        return sum(len(samples) for _, samples in self.rows)


def drawn(recipe: Recipe, manifest: Manifest, name: str, shard_samples: list[int]) -> NDArray[np.int64]:
    """How many samples at the front of each shard of source `name` the whole phase draws, shape (shards,)."""
    training = recipe.training
    weights = [source.weight_asked for source in manifest.sources.values()]
    plan = plan_epochs(weights, recipe.steps, training.global_batch, training.virtual_epoch_samples)
    return drawn_front(plan, list(manifest.sources).index(name), Cycle(name, shard_samples, recipe.seed))


def choose(shard_samples: list[int], front: NDArray[np.int64], count: int) -> Choice:
    """Up to `count` samples spread over the shards, beyond `front` where anything is left there, else from all."""
    sizes = np.asarray(shard_samples, np.int64)
    left = sizes - front
    unseen = int(left.sum())
    begins, room = (front, left) if unseen else (np.zeros_like(front), sizes)
    some = np.flatnonzero(room)
    # Fewer shards than samples: unpacking a shard for one sample of it would be waste.
    shards = some[_spread(len(some), min(MOST_SHARDS, count))]
    while room[shards].sum() < min(count, room.sum()):
        shards = np.union1d(shards, some[~np.isin(some, shards)][:MOST_SHARDS])
    rows, wanted = [], count
    # The emptiest first: what they lack the others make up for.
    for place, shard in enumerate(sorted(shards.tolist(), key=lambda each: int(room[each]))):
        picked = _spread(int(room[shard]), -(-wanted // (len(shards) - place)))
        rows.append((shard, begins[shard] + picked))
        wanted -= len(picked)
    return Choice([row for row in rows if len(row[1])], not unseen, unseen)


def _spread(size: int, count: int) -> NDArray[np.int64]:
    """Up to `count` different places of 0..size-1, evenly apart."""
    count = min(size, count)
    return np.arange(count, dtype=np.int64) * size // max(count, 1)


def held_out(subject: Subject, data: Path, count: int, batch: int) -> dict[str, Any]:
    """Mean loss of each source over up to `count` samples, and their mean by the mix's weights."""
    manifest, recipe = subject.manifest, subject.recipe
    build = data / manifest.recipe
    streams = {name: _stream(name, build / source.stream, source.samples) for name, source in manifest.sources.items()}
    choices = {name: choose(stream.shard_samples, _front(subject, name, stream), count)
               for name, stream in streams.items()}  # fmt: skip
    facts, boundary = manifest.tokenizer, manifest.boundary
    collator = Collator(
        facts.bos_id if boundary != "eos" else None, facts.eos_id if boundary != "bos" else None, recipe.document_mask
    )
    sources: dict[str, Any] = {}
    with Progress("held-out", sum(choice.count for choice in choices.values()), "samples") as progress:
        for name, choice in choices.items():
            loss = _loss(subject, streams[name], choice, collator, batch, progress)
            sources[name] = {
                "loss": loss, "perplexity": math.exp(loss), "samples": choice.count,
                "tokens": choice.count * manifest.seq_len, "seen_in_training": choice.seen,
                "samples_never_drawn": choice.unseen, "weight": manifest.sources[name].weight,
            }  # fmt: skip
    return {
        "loss": sum(each["loss"] * each["weight"] for each in sources.values()),
        "sources": sources,
        "other_weights_loaded": loaded_weights(subject.root),
    }


def _stream(name: str, folder: Path, samples: int) -> StreamSamples:
    stream = StreamSamples(folder)
    if sum(stream.shard_samples) != samples:
        raise UserError(
            f"holds {sum(stream.shard_samples)} samples, the run's '{name}' had {samples}", where=str(folder),
            fix="Name the data the run was trained on: --data DATA.",
        )  # fmt: skip
    return stream


def _front(subject: Subject, name: str, stream: StreamSamples) -> NDArray[np.int64]:
    """Drawn samples at the front of each shard, over all phases so far that read the stream, under whatever name."""
    print_of = subject.manifest.sources[name].stream_fingerprint
    front = np.zeros(len(stream.shard_samples), np.int64)
    for recipe, manifest in zip(subject.phases, subject.manifests, strict=True):
        for entry, source in manifest.sources.items():
            if source.stream_fingerprint == print_of:
                front = np.maximum(front, drawn(recipe, manifest, entry, stream.shard_samples))
    return front


def loaded_weights(root: Path) -> bool:
    """Whether the run started from other weights, whose training data is not known here."""
    return any(start.get("loaded") for start in read_json(root / "run.json")["starts"])


@torch.inference_mode()
def _loss(
    subject: Subject, stream: StreamSamples, choice: Choice, collator: Collator, batch: int, progress: Progress
) -> float:
    total = 0.0
    for shard, samples in choice.rows:
        ids = stream.read(shard)[samples]
        for start in range(0, len(ids), batch):
            rows = [{"ids": row, "sample_id": 0, "source": 0} for row in ids[start : start + batch]]
            inputs = {key: tensor.to(subject.device) for key, tensor in collator(rows).items()}
            targets = inputs["labels"]
            _, losses = subject.model(
                inputs["input_ids"],
                inputs.get("doc_ids"),
                objective=lambda hidden, head, targets=targets: cross_entropy(hidden, head, targets=targets),
            )
            total += losses.double().mean(dim=1).sum().item()
            progress.advance(len(rows))
    return total / choice.count
