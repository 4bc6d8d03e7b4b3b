"""Exact deduplication in two passes, in bounded memory, with a result that no order of work can change.

Pass 1, per unit: HashWriter stores a 128-bit hash of every document's text. Pass 2, per partition of the hash space:
find_duplicates looks at one range of hashes over all units. Then write_drop_lists turns the findings into one drop
list per unit. Any number of partitions gives the same drop lists.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.cleaning.comparisons.droplists import UnitRef, load_array, save_array, save_drop_list

BYTES_PER_RECORD = 72
"""Peak memory of find_duplicates per document of the partition: the columns, their sorted copies and the order."""


class HashWriter:
    """Pass 1: collects the content hashes of one unit (about 24 bytes of memory per document)."""

    def __init__(self, folder: Path, ref: UnitRef) -> None:
        self._path = ref.file(folder, "hash.npy")
        self._digests = bytearray()
        self._ordinals = array("Q")

    def add(self, ordinal: int, text: str) -> None:
        """Take in a document: its place among the unit's records, and its text as it stands at this step."""
        # Lone surrogates cannot be encoded strictly, yet such a text must still equal itself.
        self._digests += hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._ordinals.append(ordinal)

    def close(self) -> None:
        """Write the unit's hashes: uint64 array of rows (high half, low half, ordinal), in that order."""
        high, low = np.frombuffer(self._digests, ">u8").astype("<u8").reshape(-1, 2).T
        ordinals = np.array(self._ordinals, "<u8")
        order = np.lexsort((ordinals, low, high))
        save_array(self._path, np.stack([high[order], low[order], ordinals[order]]))


def partitions_for(folder: Path, units: Sequence[UnitRef], memory: int = 1 << 30) -> int:
    """How many partitions keep find_duplicates within ``memory`` bytes."""
    records = sum(_hashes(folder, ref).shape[1] for ref in units)
    return max(1, -(-records * BYTES_PER_RECORD // memory))


def find_duplicates(folder: Path, units: Sequence[UnitRef], partition: int, partitions: int) -> int:
    """Pass 2 for one of ``partitions`` ranges of hashes; returns how many documents of it are dropped.

    Of equal documents the first in the order of ``units`` and ordinals stays. Raises UserError when pass 1 of a unit
    is missing.
    """
    low_end, high_end = ((1 << 64) * part // partitions for part in (partition, partition + 1))
    pieces: list[NDArray[np.uint64]] = []
    sizes: list[int] = []
    for ref in units:
        hashes = _hashes(folder, ref)
        first = int(np.searchsorted(hashes[0], np.uint64(low_end)))
        last = int(np.searchsorted(hashes[0], np.uint64(high_end))) if high_end < 1 << 64 else hashes.shape[1]
        pieces.append(np.array(hashes[:, first:last]))
        sizes.append(last - first)
    high, low, ordinals = np.concatenate(pieces, axis=1) if pieces else np.empty((3, 0), np.uint64)
    del pieces
    # The sort is stable: equal hashes stay in the order of units, and of ordinals inside a unit.
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    repeats = np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1])) + 1
    dropped = np.sort(order[repeats])
    positions = np.repeat(np.arange(len(units)), sizes)[dropped]
    save_array(_found(folder, partition, partitions), np.stack([positions, ordinals[dropped].astype(np.int64)]))
    return len(dropped)


def write_drop_lists(folder: Path, units: Sequence[UnitRef], partitions: int) -> int:
    """Write every unit's drop list from the findings of all partitions; returns how many documents are dropped."""
    found = [load_array(_found(folder, partition, partitions), mapped=True) for partition in range(partitions)]
    total = 0
    for position, ref in enumerate(units):
        parts = [part[1, slice(*np.searchsorted(part[0], [position, position + 1]))] for part in found]
        ordinals = np.concatenate(parts)
        save_drop_list(folder, ref, ordinals)
        total += len(ordinals)
    return total


def _hashes(folder: Path, ref: UnitRef) -> NDArray[np.uint64]:
    return load_array(ref.file(folder, "hash.npy"), mapped=True)


def _found(folder: Path, partition: int, partitions: int) -> Path:
    # A source cannot be called this: names start with a letter or digit.
    return folder / "_partitions" / f"{partition:05d}-of-{partitions:05d}.npy"
