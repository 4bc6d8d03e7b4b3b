"""Which samples the steps of a phase draw, worked out by itself instead of read from a loader that runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from streaming.base.partition import get_partitions
from streaming.base.shuffle import get_shuffle

from training.data.loader import MixtureDataset


class Arrangement:
    """The sample numbers of each step's global batch, arranged as for one reader of whole batches.

    The loader deals the same order out to ranks and data workers, so a batch it really draws proves itself against
    this. The last virtual epoch asked for is kept: 8 bytes per sample.
    """

    def __init__(self, dataset: MixtureDataset) -> None:
        self._dataset = dataset
        self._epoch = -1
        self._order: NDArray[np.int64] = np.zeros((0, 0), np.int64)

    def step(self, step: int) -> NDArray[np.int64]:
        """Samples (global_batch,) of 0-based `step`, in no particular order within the batch."""
        dataset, plan = self._dataset, self._dataset.plan
        epoch = plan.epoch_of(step)
        if epoch != self._epoch:
            units, samples = dataset.resample_streams(epoch)
            canonical = dataset.num_canonical_nodes
            assert canonical is not None and isinstance(dataset.shuffle_block_size, int)
            places = get_partitions(
                dataset.partition_algo, plan.samples(epoch), canonical, 1, 1, 1, plan.global_batch, 0, canonical
            )
            shuffle = get_shuffle(
                dataset.shuffle_algo, units, canonical, dataset.shuffle_seed, epoch, dataset.shuffle_block_size
            )
            self._order = samples[shuffle[places.reshape(-1, plan.global_batch)]]
            self._epoch = epoch
        return self._order[step - int(plan.step_ends[epoch])]
