"""What a phase asks of a cluster, worked out without its data.

Streams of the published sizes are laid out as indexes with no shards behind them; then the loader's own code opens
them, arranges virtual epochs for the given nodes, and its arrangement says what each node would read and when.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corpus.recipe.model import Recipe
from training.base.memory import peak_memory
from training.data.elastic import check_world

if TYPE_CHECKING:
    from training.data.dataset import MixtureDataset


SHARD_BYTES = 64 << 20
"""Unpacked size of a shard, as the builder writes them."""


ZIP_RATIO = 0.4
"""Stored over unpacked bytes of 32-bit ids. Measured: 0.26-0.28 on source code and package metadata (128k vocabulary,
zstd); web text is less repetitive, so the default is a cautious guess of ours."""


TOKENS_PER_SECOND = 40_000
"""Per GPU. The published R1 runs imply 38,000 to 47,000."""


RESUME_AT = 0.6


WORKERS = 2


@dataclass(frozen=True)
class Simulation:
    """What was worked out; bytes and seconds throughout, per-node figures are of the node that reads most."""

    recipe: str
    nodes: int
    gpus: int
    steps: int
    virtual_epochs: int
    steps_per_virtual_epoch: int
    shards: int
    hours: float
    """Of the whole phase at the given speed."""
    assumed_sizes: list[str]
    """Mixture entries without a published size, taken to be seen once."""
    open_seconds: float
    """Reading the indexes; every rank does."""
    arrange_seconds: float
    """Arranging one virtual epoch; one process per node does."""
    peak_bytes: int
    """Memory of the process that did both."""
    cache_bytes: int
    """Unpacked shards that a node reads all through one virtual epoch: the least cache that fetches nothing twice."""
    whole_cache_bytes: int
    """Unpacked shards that a node reads all through the phase: what a cache without a limit grows to."""
    fetch_bytes_per_hour: float
    """Stored bytes that a node fetches, with that cache."""
    resume_step: int
    resume_seconds: float
    """Opening and arranging at that step, before any shard is fetched."""
    resume_fetch_bytes: int
    """Stored bytes that a node with an empty cache fetches before its first batch."""


def simulate(recipe: Recipe, nodes: int, gpus: int, tokens_per_second: float = TOKENS_PER_SECOND) -> Simulation:
    """Work out `recipe` on `nodes` x `gpus` processes; raises UserError for a world size that cannot run it."""
    training = recipe.training
    device_batch = check_world(training.global_batch, training.canonical_nodes, nodes, gpus)
    samples, assumed = source_samples(recipe)
    with tempfile.TemporaryDirectory(prefix="simulate-") as folder:
        for name, count in samples.items():
            write_index(Path(folder, name), samples=count, seq_len=recipe.seq_len)
        begun = time.monotonic()
        dataset = _open(recipe, Path(folder), list(samples))
        opened = time.monotonic() - begun
        try:
            plan = dataset.plan
            step = int(plan.total_steps * RESUME_AT)
            epoch = min(plan.epoch_of(step), plan.epochs - 1)
            begun = time.monotonic()
            work = _arrange(dataset, nodes, gpus, device_batch, epoch, step - int(plan.step_ends[epoch]))
            resumed = time.monotonic() - begun
            first = [_shards(dataset, node[:, 0, 0]) for node in work]
            begun = time.monotonic()
            now = [_shards(dataset, node) for node in _arrange(dataset, nodes, gpus, device_batch, epoch, 0)]
            arranged = time.monotonic() - begun
            later = now
            if epoch + 1 < plan.epochs:
                later = [_shards(dataset, node) for node in _arrange(dataset, nodes, gpus, device_batch, epoch + 1, 0)]
            new = [after - before for before, after in zip(now, later, strict=True)] if later is not now else now
            hours = plan.samples(epoch) * recipe.seq_len / (tokens_per_second * nodes * gpus) / 3600
            return Simulation(
                recipe=recipe.name,
                nodes=nodes,
                gpus=gpus,
                steps=plan.total_steps,
                virtual_epochs=plan.epochs,
                steps_per_virtual_epoch=int(np.diff(plan.step_ends).max()),
                shards=len(dataset.shards),
                hours=recipe.tokens / (tokens_per_second * nodes * gpus) / 3600,
                assumed_sizes=assumed,
                open_seconds=opened,
                arrange_seconds=arranged,
                peak_bytes=peak_memory(),
                cache_bytes=max(_bytes(dataset, shards, stored=False) for shards in now),
                whole_cache_bytes=dataset.unpacked_bytes() // min(nodes, training.canonical_nodes),
                fetch_bytes_per_hour=max(_bytes(dataset, shards, stored=True) for shards in new) / hours,
                resume_step=step,
                resume_seconds=opened + resumed,
                resume_fetch_bytes=max(_bytes(dataset, shards, stored=True) for shards in first),
            )
        finally:
            dataset.close()


def source_samples(recipe: Recipe) -> tuple[dict[str, int], list[str]]:
    """Samples of each mixture entry's stream by its published tokens, and the entries that have none published."""
    from corpus.catalogue.load import find_source
    from corpus.recipe.published import published_counts

    samples, assumed = {}, []
    for name, entry in recipe.mixture.items():
        _, tokens, _ = published_counts(find_source(entry.source, recipe.sources), recipe.phase)
        if tokens is None:
            assumed.append(name)
            tokens = math.ceil(recipe.tokens * recipe.shares()[name])
        samples[name] = max(1, tokens // (recipe.seq_len + 1))
    return samples, assumed


def write_index(folder: Path, *, samples: int, seq_len: int) -> None:
    """The index.json of a stream of 32-bit ids, cut into full shards, without the shards."""
    size = (seq_len + 1) * 4
    per_shard = max(1, SHARD_BYTES // size)
    counts = [per_shard] * (samples // per_shard) + [samples % per_shard] * (samples % per_shard > 0)
    shared = {
        "column_encodings": [f"ndarray:uint32:{seq_len + 1}"],
        "column_names": ["ids"],
        "column_sizes": [size],
        "compression": "zstd",
        "format": "mds",
        "hashes": ["xxh64"],
        "size_limit": SHARD_BYTES,
        "version": 2,
    }
    shards = []
    for number, count in enumerate(counts):
        name = f"units/{number // 64:06}/shard.{number % 64:05}.mds"
        # The hashes are never checked, but a real index is this long.
        raw = {"basename": name, "bytes": count * size, "hashes": {"xxh64": f"{number:016x}"}}
        stored = {**raw, "basename": name + ".zstd", "bytes": int(count * size * ZIP_RATIO)}
        shards.append({**shared, "samples": count, "raw_data": raw, "zip_data": stored})
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))


def _open(recipe: Recipe, folder: Path, names: list[str]) -> MixtureDataset:
    from training.data.dataset import MixtureDataset, MixtureSource

    sources = [MixtureSource(n, folder / n, None, recipe.mixture[n].weight) for n in names]
    return MixtureDataset(
        sources,
        seq_len=recipe.seq_len,
        seed=recipe.seed,
        global_batch=recipe.training.global_batch,
        canonical_nodes=recipe.training.canonical_nodes,
        total_steps=recipe.steps,
        virtual_epoch_samples=recipe.training.virtual_epoch_samples,
        shards_needed=False,
    )


def _arrange(
    dataset: MixtureDataset, nodes: int, gpus: int, device_batch: int, epoch: int, step: int
) -> list[NDArray[np.int64]]:
    """Per node, the samples from `step` of an epoch on: (gpus, workers, batches, device_batch), -1 where padded."""
    from streaming.base.batching import generate_work
    from streaming.base.world import World

    dataset.batch_size = device_batch
    dataset.epoch_size = dataset.plan.samples(epoch)
    world = World(nodes, gpus, WORKERS, 0)
    return list(generate_work("random", dataset, world, epoch, step * dataset.plan.global_batch))


def _shards(dataset: MixtureDataset, samples: NDArray[np.int64]) -> set[int]:
    flat = np.unique(samples)
    ends = dataset.sample_offset_per_shard + dataset.samples_per_shard
    return set(np.unique(np.searchsorted(ends, flat[flat >= 0], side="right")).tolist())


def _bytes(dataset: MixtureDataset, shards: Iterable[int], *, stored: bool) -> int:
    readers = [dataset.shards[shard] for shard in shards]
    return sum((reader.get_zip_size() or 0) if stored else reader.get_raw_size() for reader in readers)
