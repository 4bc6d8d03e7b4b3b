"""StreamingDataset with exact virtual epochs: the samples of one training phase, for one rank.

The samples of global step t depend on the streams, the seed and t alone: not on processes, nodes, data workers, or
where a run was resumed. The virtual epochs of training/data/mixture.py follow one another inside one iteration, so data
workers read ahead across their ends and a position is simply a number of steps. Partitioning, shuffling inside a
virtual epoch, download and caching are the library's own, reached through training/data/streaming_adapter.py.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming.base.distributed import maybe_init_dist
from streaming.base.world import World
from torch import distributed as dist

from corpus.base.errors import UserError
from corpus.base.numbers import file_size
from training.data.elastic import check_resume, check_world, fingerprint_fields
from training.data.mixture import Cycle, arrange_epoch, plan_epochs
from training.data.shm import gather, pages, register
from training.data.stream import MixtureStream, is_of_place, missing_error, shard_error
from training.data.streaming_adapter import AdaptedDataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixtureSource:
    """One stream of the mix."""

    name: str
    """The source's name. It keys the order of its shards: a renamed source is read in another order."""
    local: Path
    """The stream's folder, in which shards are unpacked; with a `remote`, the folder that caches it. Runs without a
    cache limit may share one."""
    remote: str | None
    """URL that shards are fetched from, or the stream's folder; None when `local` holds the stream itself."""
    weight: float
    """Share of the phase's tokens, in any unit."""


class MixtureDataset(AdaptedDataset):
    """The samples of one training phase, for one rank.

    Items are dicts: ids (seq_len + 1,) uint16 or uint32, sample_id (its number through all streams, in the order of
    `sources`) and source (index into `source_names`). Iterating starts at the position last loaded, or at step 0, and
    runs to the end of the phase; iterate once per loaded position.
    """

    def __init__(
        self,
        sources: Sequence[MixtureSource],
        *,
        seq_len: int,
        seed: int,
        global_batch: int,
        canonical_nodes: int,
        total_steps: int,
        virtual_epoch_samples: int,
        manifest: str = "",
        cache_limit: int | None = None,
        stall_seconds: float = 300.0,
        allow_changed_data: bool = False,
        shards_needed: bool = True,
        batch_room: int = 0,
    ) -> None:
        """Open the streams; call on all ranks together.

        `batch_room` is the bytes of shared memory that this process's data workers take for batches; there must be room
        for them. `cache_limit` is bytes per node and needs every source to have a remote, and a cache of this run's
        own. With `shards_needed`, a stream on this machine must have all its shards; without, it is only looked at. A
        wait of `stall_seconds` for one sample is logged with the stream and shard it is for. Raises UserError for
        streams that are missing, damaged or of another seq_len, a world size that does not divide the batch, and
        limited cache folders in use.
        """
        world = World.detect()
        self.device_batch = check_world(global_batch, canonical_nodes, world.num_nodes, world.ranks_per_node)
        if cache_limit is not None and any(source.remote is None for source in sources):
            raise UserError(
                "a cache limit would delete shards of a stream that has no remote to fetch them from again",
                fix="Name the built data as the remote and another folder as the cache, or drop the limit.",
            )
        weights = [source.weight for source in sources]
        self.source_names = [source.name for source in sources]
        self.plan = plan_epochs(weights, total_steps, global_batch, virtual_epoch_samples)
        self.max_seq_len = seq_len
        self.stall_seconds = stall_seconds
        self.allow_changed_data = allow_changed_data
        self.fields = fingerprint_fields(
            manifest=manifest,
            mixture=list(zip(self.source_names, weights, strict=True)),
            seed=seed,
            seq_len=seq_len,
            global_batch=global_batch,
            canonical_nodes=canonical_nodes,
            total_steps=total_steps,
            virtual_epoch_samples=virtual_epoch_samples,
        )
        self._changes: list[dict[str, Any]] = []
        self._start_step = 0
        self._position = (0, 0)  # virtual epoch, step within it
        self._waiting_since: float | None = None
        streams = [MixtureStream(s.name, s.local, s.remote, seq_len) for s in sources]
        made_group = maybe_init_dist()
        try:
            self._ownership = register(
                [str(stream.local) for stream in streams],
                cache_limit is not None,
                # The samples of a virtual epoch, and seven segments that mostly fit a page.
                pages(8 * max(map(self.plan.samples, range(self.plan.epochs))), *[1] * 7),
                batch_room * world.ranks_per_node,
                world,
            )
            super().__init__(
                number=self._ownership.number,
                segment=self._ownership.segment,
                streams=streams,
                batch_size=self.device_batch,
                cache_limit=cache_limit,
                num_canonical_nodes=canonical_nodes,
                shuffle=True,
                # Blocks no smaller than a default virtual epoch: sources are mixed evenly all through it.
                shuffle_algo="py1br",
                shuffle_block_size=max((1 << 22) // canonical_nodes, 1 << 18),
                shuffle_seed=seed,
                validate_hash="xxh64",
            )
            if shards_needed:
                self._check_present(streams)
        except (ValueError, OSError) as error:
            if hasattr(self, "_ownership"):
                self._ownership.release()
            if isinstance(error, UserError):
                raise
            raise UserError(f"the streams cannot be opened: {error}") from error
        finally:
            if made_group:
                dist.destroy_process_group()
        # Lets node counts unrelated to the canonical nodes read the same order (see training/data/elastic.py).
        self.initial_physical_nodes = canonical_nodes  # type: ignore[assignment]
        self._source_ends = np.cumsum(self.samples_per_stream).tolist()
        self._cycles = [
            Cycle(name, self.samples_per_shard[start : start + count], seed)
            for name, start, count in zip(
                self.source_names, self.shard_offset_per_stream, self.shards_per_stream, strict=True
            )
        ]
        if cache_limit is not None:
            self._check_limit(world)
        if world.is_local_leader and any(source.remote for source in sources):
            self._check_room(world)

    def _check_present(self, streams: Sequence[MixtureStream]) -> None:
        lost: list[list[Any]] = [[s.name, str(s.origin), s.lost[0], len(s.lost)] for s in streams if s.lost]
        for found in gather(lost[:1]):  # local leaders have looked; all ranks must end
            if found:
                raise missing_error(*found[0])

    def _check_room(self, world: World) -> None:
        readers = min(world.num_nodes, self.fields["canonical_nodes"])
        need = min(self.unpacked_bytes() // readers, self.cache_limit or sys.maxsize)
        free = shutil.disk_usage(self.streams[0].local).free
        if free + self.cache_usage < need:
            log.warning(
                "the cache %s may grow to %s on this node and has %s left: name another folder with --cache, or bound "
                "it with --cache-limit.",
                self.streams[0].local,
                file_size(need),
                file_size(free),
            )

    def unpacked_bytes(self) -> int:
        """Bytes of the unpacked shards that the phase reads, on all nodes together."""
        drawn = np.minimum(1.0, self.plan.draws[-1] / np.asarray(self.samples_per_stream))
        sizes = np.array([shard.get_raw_size() for shard in self.shards], np.float64)
        totals = np.add.reduceat(sizes, self.shard_offset_per_stream)
        return int((drawn * totals).sum())

    def _check_limit(self, world: World) -> None:
        sizes, samples = arrange_epoch(self.plan, self._cycles, 0)
        first = samples[np.cumsum(sizes) - sizes]
        shards = {self.spanner[sample][0] for sample in first.tolist()}
        readers = min(world.num_nodes, self.fields["canonical_nodes"])
        share = sum(self.shards[shard].get_max_size() for shard in shards) // readers
        if world.is_leader and self.cache_limit is not None and self.cache_limit < share:
            log.warning(
                "a cache limit of %d bytes is less than the %d that a virtual epoch reads on each node, all through "
                "it: shards will be fetched again and again. Raise it, or lower training.virtual_epoch_samples.",
                self.cache_limit,
                share,
            )

    def __len__(self) -> int:
        """Samples that this rank gets over the whole phase."""
        return self.plan.total_steps * self.device_batch

    def close(self) -> None:
        """Give up the shared memory and the cache folders, for a process that goes on to another phase.

        Neither the dataset nor an iterator over it can be used afterwards.
        """
        self.remove_segments()
        self._ownership.release()

    # -- position ------------------------------------------------------------------------------------------------

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """The position after `num_samples` samples over all ranks, counted from the phase's start or this run's.

        Composer calls this with its count of samples in the epoch, which is the phase.
        """
        steps, rest = divmod(num_samples, self.plan.global_batch)
        assert rest == 0, f"{num_samples} samples are no whole number of steps"
        return {
            "step": steps if from_beginning else self._start_step + steps,
            "fields": self.fields,
            "changes": self._changes,
        }

    def load_state_dict(self, obj: dict[str, Any]) -> None:
        """Go to a saved position; UserError when the data is not what it was, unless that was allowed."""
        changed = check_resume(obj["fields"], self.fields, allow=self.allow_changed_data)
        step = int(obj["step"])
        if step > self.plan.total_steps:
            raise UserError(f"the checkpoint is at step {step} of a phase that has {self.plan.total_steps} steps")
        self._changes = list(obj["changes"])
        if changed:
            log.warning("going on with changed data from step %d: %s", step, ", ".join(changed))
            self._changes.append({"step": step, "changed": changed})
        self._start_step = step

    def position(self) -> tuple[int, int]:
        """The virtual epoch to iterate over next, and the samples of it that are done."""
        epoch, step = self._position
        return epoch, step * self.plan.global_batch

    # -- arrangement ---------------------------------------------------------------------------------------------

    def resample_streams(self, epoch: int, stream_id: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shard ranges and samples of one virtual epoch; see :func:`training.data.mixture.arrange_epoch`."""
        assert stream_id is None, "the virtual epoch is arranged over all streams at once"
        return arrange_epoch(self.plan, self._cycles, epoch)

    def samples_in(self, epoch: int) -> int:
        """Samples of a virtual epoch."""
        return self.plan.samples(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This worker's samples from the loaded position to the end of the phase."""
        done = threading.Event()
        threading.Thread(target=self._watch, args=(done,), daemon=True).start()
        step = self._start_step
        try:
            while step < self.plan.total_steps:
                epoch = self.plan.epoch_of(step)
                self._position = (epoch, step - int(self.plan.step_ends[epoch]))
                self.batches_before = step - self._start_step
                samples = super().__iter__()
                while True:
                    self._waiting_since = time.monotonic()
                    sample = next(samples, None)
                    self._waiting_since = None
                    if sample is None:
                        break
                    yield sample
                if self.has_failed():
                    raise self.failure or RuntimeError("a background thread of the data loader failed")
                step = int(self.plan.step_ends[epoch + 1])
        finally:
            done.set()
            self.end_threads()

    # -- samples -------------------------------------------------------------------------------------------------

    def get_item(self, sample_id: int, retry: int = 7) -> dict[str, Any]:
        """One sample by its number through all streams, fetching its shard if need be."""
        sample_id = int(sample_id)
        try:
            ids = super().get_item(sample_id, retry)["ids"]
        except (RuntimeError, IndexError, ValueError, OSError) as error:
            shard = self.spanner[sample_id][0]
            raise self.failure or self.shard_error(shard, str(error), damaged=not is_of_place(error)) from error
        return {"ids": ids, "sample_id": sample_id, "source": bisect_right(self._source_ends, sample_id)}

    def shard_error(self, shard_id: int, reason: str, *, damaged: bool = True) -> UserError:
        """The stream, the shard and where it is kept, with the reason."""
        stream = self.streams[self.stream_per_shard[shard_id]]
        return shard_error(stream, self.shards[shard_id], reason, damaged=damaged)

    def _watch(self, done: threading.Event) -> None:
        reported = 0.0
        while not done.wait(min(1.0, self.stall_seconds / 4)):
            since = self._waiting_since
            if since is not None and time.monotonic() - max(since, reported) > self.stall_seconds:
                reported = time.monotonic()
                log.warning("the data loader has waited %.0f s for %s", reported - since, self._awaited())

    def _awaited(self) -> str:
        if self.arranging or not self.has_work:
            return f"the other data workers of this node, to start virtual epoch {self._position[0]}"
        sample_id = self.next_sample()
        if sample_id is None:
            return "its background threads to end"
        shard_id, _ = self.spanner[sample_id]
        name = self.source_names[self.stream_per_shard[shard_id]]
        return f"stream '{name}', shard {self.shards[shard_id].file_pairs[0][0].basename} ({self.state_of(shard_id)})"
