"""The mixture loader: the DataLoader that Composer trains one phase from.

For Composer the phase is one epoch of `total_steps` batches. See training/data/dataset.py for what a step holds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from streaming.base.world import World
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from corpus.base.errors import UserError
from corpus.base.process import end_with_parent
from training.data.dataset import MixtureDataset, MixtureSource
from training.data.shm import pages

__all__ = ["Collator", "MixtureDataset", "MixtureLoader", "MixtureSource", "build_loader"]


PREFETCH = 4
"""Batches that each data worker has under way."""
TENSOR_HEAD = 64
"""Bytes that torch puts before a tensor in shared memory."""


@dataclass(frozen=True)
class Collator:
    """Makes a batch of samples; the fields say how documents are told apart."""

    bos_id: int | None = None
    """Id that starts a document, where the recipe's boundary has one."""
    eos_id: int | None = None
    """Id that ends a document, where the recipe's boundary has one."""
    document_mask: bool = False
    """Add doc_ids."""

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """int64 input_ids and labels (B, S), sample_ids and source_ids (B,); doc_ids (B, S) int32 with document_mask.

        labels[b, s] is the id that follows input_ids[b, s]. doc_ids counts documents from 0 in each row.
        """
        ids = np.stack([sample["ids"] for sample in samples])
        # Two rows of one tensor each: a data worker hands over a tensor at the price of a shared-memory file.
        tokens = torch.empty((2, len(ids), ids.shape[1] - 1), dtype=torch.int64)
        tokens.numpy()[0], tokens.numpy()[1] = ids[:, :-1], ids[:, 1:]
        origin = torch.tensor([[sample[key] for sample in samples] for key in ("sample_id", "source")])
        batch = {"input_ids": tokens[0], "labels": tokens[1], "sample_ids": origin[0], "source_ids": origin[1]}
        if self.document_mask:
            batch["doc_ids"] = torch.from_numpy(self._documents(ids[:, :-1]))
        return batch

    def _documents(self, ids: NDArray[Any]) -> NDArray[np.int32]:
        starts = np.zeros(ids.shape, bool)
        if self.eos_id is not None:
            starts[:, 1:] |= ids[:, :-1] == self.eos_id
        if self.bos_id is not None:
            starts |= ids == self.bos_id
        starts[:, 0] = False  # a row's first token belongs to document 0 either way
        return np.cumsum(starts, axis=1, dtype=np.int32)


def batch_memory(rows: int, seq_len: int, *, document_mask: bool, teacher_k: int) -> int:
    """Bytes of shared memory that a batch of `rows` samples takes on its way from a data worker."""
    cells = rows * seq_len
    sizes = [16 * cells, 16 * rows, 4 * cells * document_mask, 4 * teacher_k * cells]
    if teacher_k:
        sizes.append(2 * (teacher_k + 1) * cells)
    return pages(*(size + TENSOR_HEAD for size in sizes if size))


def _start_worker(_: int) -> None:
    # One that waits for a dead sibling would else live on, and with it its run's shared memory.
    owner = multiprocessing.parent_process()
    direct = multiprocessing.get_start_method() != "forkserver"
    end_with_parent(signal.SIGKILL, owner.pid if direct and owner and owner.pid else os.getppid())


class MixtureLoader(DataLoader[dict[str, torch.Tensor]]):
    """A DataLoader whose workers' user errors stay one line."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:  # type: ignore[override]
        """Batches from the dataset's loaded position to the end of the phase."""
        batches = super().__iter__()
        try:
            yield from batches
        except UserError as error:
            if self.num_workers == 0:
                raise
            # torch re-raises a worker's error with its whole traceback as the message.
            raise UserError(
                error.what.strip().splitlines()[-1].removeprefix("corpus.base.errors.UserError: ")
            ) from None
        except Exception as error:
            # Of any type: torch tells of a dead worker from inside a signal handler, wherever that may be.
            if isinstance(batches, _MultiProcessingDataLoaderIter) and (death := _death(batches, str(error))):
                raise death from error
            raise
        finally:
            if isinstance(batches, _MultiProcessingDataLoaderIter):
                # Not left to the garbage collector: the traceback of an error keeps the iterator, and at its exit the
                # process would then wait for workers that nobody has told to end, and that ignore SIGTERM.
                batches._shutdown_workers()
                for worker in batches._workers:
                    worker.kill()


def _death(batches: _MultiProcessingDataLoaderIter, told: str) -> UserError | None:
    """Why a data worker died, where the user can do something about it."""
    exits = [worker.exitcode for worker in batches._workers]
    no_room = "torch_" in told and "No space left on device" in told
    if -signal.SIGBUS in exits or "Bus error" in told or no_room:
        return UserError(
            "a data worker found no more room in the shared memory /dev/shm (a bus error)",
            fix="Give the container more (docker run --shm-size), or use fewer --workers.",
        )
    if -signal.SIGKILL in exits:
        return UserError(
            "a data worker was killed, by the system for want of memory or by someone",
            fix="Run the same command again, with fewer --workers if it happens often.",
        )
    return None


def build_loader(
    sources: Sequence[MixtureSource],
    *,
    seq_len: int,
    seed: int,
    global_batch: int,
    canonical_nodes: int,
    total_steps: int,
    virtual_epoch_samples: int,
    num_workers: int = 2,
    manifest: str = "",
    bos_id: int | None = None,
    eos_id: int | None = None,
    document_mask: bool = False,
    teacher_k: int = 0,
    cache_limit: int | None = None,
    stall_seconds: float = 300.0,
    allow_changed_data: bool = False,
) -> MixtureLoader:
    """The loader of one phase: `total_steps` batches of global_batch / world_size samples for this rank.

    `teacher_k` is the ids of a cached teacher that a position has in the batches, for the memory they take.

    Call on all ranks together. `manifest` is the manifest's fingerprint; see :class:`Collator` for batches and
    :class:`MixtureDataset` for the rest and the errors raised.
    """
    if document_mask and bos_id is None and eos_id is None:
        raise UserError("document_mask needs the ids of the recipe's boundary tokens")
    rows = global_batch // World.detect().num_ranks
    one = batch_memory(rows, seq_len, document_mask=document_mask, teacher_k=teacher_k)
    dataset = MixtureDataset(
        sources,
        seq_len=seq_len,
        seed=seed,
        global_batch=global_batch,
        canonical_nodes=canonical_nodes,
        total_steps=total_steps,
        virtual_epoch_samples=virtual_epoch_samples,
        manifest=manifest,
        cache_limit=cache_limit,
        stall_seconds=stall_seconds,
        allow_changed_data=allow_changed_data,
        # One more is on its way to the step; the queues' locks take a page each.
        batch_room=(num_workers * PREFETCH + 1) * one + num_workers * pages(*[1] * 8) if num_workers else 0,
    )
    return MixtureLoader(
        dataset,
        batch_size=dataset.device_batch,
        collate_fn=Collator(bos_id, eos_id, document_mask),
        num_workers=num_workers,
        # Forked workers inherit the hold on this run's shared memory (training/data/shm.py).
        multiprocessing_context="fork" if num_workers else None,
        prefetch_factor=PREFETCH if num_workers else None,
        worker_init_fn=_start_worker if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        # A generator of its own: starting the loader must not move the model's random numbers.
        generator=torch.Generator().manual_seed(seed),
    )
