"""The only module that patches the streaming library or uses its private names; each place says why.

What the library keeps to itself appears here as methods with public names: MixtureStream and MixtureDataset are built
on those. A new version of the library is checked against this file alone.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import streaming.base.dataset as streaming_dataset
import streaming.base.shared.array as streaming_array
from numpy.typing import NDArray
from streaming import Stream, StreamingDataset
from streaming.base.format import FileInfo
from streaming.base.shared import SharedMemory
from streaming.base.shared.prefix import _get_path, _pack_locals, _unpack_locals
from streaming.base.world import World

from corpus.base.errors import UserError

# How the library names and fills the segment that records a run's folders. Whose segments they are is judged from
# outside (training/data/shm.py), and no public function reads them.
segment_name, pack_folders, unpack_folders = _get_path, _pack_locals, _unpack_locals

# How the library marks a shard of the cache; its own enum is private.
REMOTE, PREPARING, LOCAL = 1, 2, 3
STATE_WORDS = {REMOTE: "not fetched yet", PREPARING: "being fetched or unpacked", LOCAL: "present"}

JOIN_SECONDS = 60.0
"""How long a rank waits for another to finish making a segment of theirs."""


class PatientSharedMemory(SharedMemory):
    """The library's segment, for ranks that make one together: the faster creates it, the others join.

    A new segment is empty until its maker has set its size. The library gives it 7 ms for that, then fails.
    """

    def __init__(
        self, name: str | None = None, create: bool | None = None, size: int = 0, auto_cleanup: bool = True
    ) -> None:
        """As the library's; ValueError when the segment is still empty after JOIN_SECONDS."""
        deadline = time.monotonic() + JOIN_SECONDS
        while True:
            try:
                super().__init__(name, create, size, auto_cleanup)
                return
            except ValueError:  # "cannot mmap an empty file"
                if time.monotonic() > deadline:
                    raise


class ShardIndex:
    """Which shard holds a sample, in O(shards) memory (the library's own index is O(samples))."""

    def __init__(self, shard_sizes: NDArray[np.int64]) -> None:
        """`shard_sizes`: samples per shard, shape (shards,)."""
        self._ends: list[int] = np.cumsum(shard_sizes).tolist()

    def __getitem__(self, sample_id: int) -> tuple[int, int]:
        """(shard, sample within it) of a sample numbered through all shards; IndexError outside."""
        if not 0 <= sample_id < self._ends[-1]:
            raise IndexError(f"sample {sample_id} is not in 0..{self._ends[-1] - 1}")
        shard = bisect_right(self._ends, sample_id)
        return shard, int(sample_id) - (self._ends[shard - 1] if shard else 0)


@contextmanager
def patched(number: int, segment: SharedMemory) -> Iterator[None]:
    """Three globals that the library's constructor reads are ours inside the block; it offers no other seam for them.

    Its index of samples holds 8 bytes a sample (8 GB in every rank at 1e9). Its search for a shared-memory number is a
    race, so the run's `number` and the `segment` of its folders are given; so is its joining of a segment that another
    rank is making.
    """
    stock = streaming_dataset.Spanner, streaming_dataset.get_shm_prefix, streaming_array.SharedMemory
    streaming_dataset.Spanner = ShardIndex  # type: ignore[misc, assignment]
    streaming_dataset.get_shm_prefix = lambda *_: (number, segment)
    streaming_array.SharedMemory = PatientSharedMemory  # type: ignore[misc]
    try:
        yield
    finally:
        streaming_dataset.Spanner, streaming_dataset.get_shm_prefix, streaming_array.SharedMemory = stock  # type: ignore[misc]


class AdaptedStream(Stream):
    """A Stream that fetches one file by name and makes its shards ready in its own way."""

    def fetch(self, remote_name: str, local_name: str) -> str:
        """Fetch a file of the stream and return its path."""
        # The public way fetches and parses an index at once, and its parsing is what takes long.
        return self._download_file(remote_name, local_name)

    def make_ready(self, raw: FileInfo, zipped: FileInfo | None, compression: str | None) -> int:
        """Put one file of a shard, unpacked, where it is read; returns the bytes this added."""
        raise NotImplementedError

    def _prepare_shard_part(
        self, raw_info: FileInfo, zip_info: FileInfo | None = None, compression: str | None = None
    ) -> int:
        # The library copies a shard before it unpacks it, under names that runs with one cache would fight over.
        return self.make_ready(raw_info, zip_info, compression)


class AdaptedDataset(StreamingDataset):
    """A StreamingDataset whose position is given, whose failures are kept, and whose cache can be looked into.

    A subclass defines `position`, `samples_in` and `shard_error`.
    """

    def __init__(self, *, number: int, segment: SharedMemory, **settings: Any) -> None:
        """Open the streams under a shared-memory `number` that is owned already; `settings` are the library's."""
        self.batches_before = 0
        """Batches that this iteration had drawn before its present epoch."""
        self.arranging = False
        """The present epoch is being arranged, or waits for the other workers."""
        self.failure: UserError | None = None
        """Why a background thread failed."""
        self._ready: set[int] = set()
        with patched(number, segment):
            super().__init__(**settings)

    def position(self) -> tuple[int, int]:
        """The epoch to iterate over next, and the samples of it that are done."""
        raise NotImplementedError

    def samples_in(self, epoch: int) -> int:
        """Samples of an epoch."""
        raise NotImplementedError

    def shard_error(self, shard_id: int, reason: str) -> UserError:
        """What to tell the user when a shard cannot be read."""
        raise NotImplementedError

    # -- position ------------------------------------------------------------------------------------------------

    def _resume_incr_epoch(self) -> tuple[int, int]:
        # The library counts epochs in shared memory as iterators are made; ours follow from the step alone.
        return self.position()

    def _get_work(self, epoch: int, sample_in_epoch: int) -> NDArray[np.int64]:
        # The library deals out an epoch in here, by a size and a worker's place that are fixed once for all epochs.
        self.epoch_size = self.samples_in(epoch)
        # The DataLoader asks its workers for batches in turn, right across epoch ends: whoever's turn comes first in
        # this epoch takes the first share of it.
        world = self._parallel_worker_world
        share = (world.worker_of_rank - self.batches_before) % world.workers_per_rank
        self._parallel_worker_world = World(
            world.num_nodes, world.ranks_per_node, world.workers_per_rank, world.rank * world.workers_per_rank + share
        )
        self.arranging = True
        work = super()._get_work(epoch, sample_in_epoch)
        self.arranging = False
        return work

    # -- shards --------------------------------------------------------------------------------------------------

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Fetch and unpack a shard unless it is there; a failure ends the iteration with a UserError."""
        if shard_id in self._ready and self._shard_states[shard_id] == LOCAL:
            # The library takes a machine-wide lock for each sample; here only the first of each shard needs it.
            self._shard_access_times[shard_id] = time.time_ns()
            return
        try:
            super().prepare_shard(shard_id, blocking)
        except Exception as error:
            # Raised in a background thread this would be lost and the epoch would just end early; left in the
            # "preparing" state the shard would hold up every other worker for good.
            self._shard_states[shard_id] = REMOTE
            if self._cache_filelock.is_locked:
                self._cache_filelock.release()
            self.failure = error if isinstance(error, UserError) else self.shard_error(shard_id, str(error))
            if not hasattr(self, "_event"):
                raise self.failure from error
            self._event.set()
        else:
            if self._shard_states[shard_id] == LOCAL:
                self._ready.add(shard_id)

    def _evict_coldest_shard(self) -> None:
        # Called by the library from inside prepare_shard: the one place that knows that the limit is the trouble.
        try:
            super()._evict_coldest_shard()
        except ValueError:
            raise UserError(
                f"the cache limit of {self.cache_limit} bytes does not hold the shards that are read at once",
                fix="Raise the limit.",
            ) from None

    def state_of(self, shard_id: int) -> str:
        """What is being done about a shard, in words; the library tells only itself."""
        return STATE_WORDS.get(int(self._shard_states[shard_id]), "unknown")

    # -- the iteration in progress ----------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """An epoch has been arranged for this worker."""
        return hasattr(self, "_iterator")

    def next_sample(self) -> int | None:
        """The sample that the iteration waits for; None when it has yielded its last."""
        # The library's iterator over an epoch has no name of its own outside.
        ahead = self._iterator.sample_ids[self._iterator.yield_index :]
        return next((int(s) for s in ahead if s != -1), None)

    def has_failed(self) -> bool:
        """A background thread of the iteration gave up, which the library lets look like the epoch's end."""
        return self._event.is_set()

    def end_threads(self) -> None:
        """Tell the iteration's background threads to end; left to the garbage collector they fetch on."""
        if self.has_work:
            self._iterator.non_blocking_exit()

    def remove_segments(self) -> None:
        """Remove the run's shared memory, which the library does at the exit of the process only."""
        scalars = (self._shared_barrier._arr, self._next_epoch.arr, self._cache_usage.arr)
        for array in (*scalars, self._shard_states, self._shard_access_times):
            array.shm.cleanup()
        self._locals_shm.cleanup()
