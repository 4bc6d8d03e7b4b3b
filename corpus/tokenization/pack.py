"""Packing: documents' ids with boundary ids around them, cut into samples of seq_len + 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corpus.records.stream import Boundary


def with_boundaries(
    ids: NDArray[np.uint32], lengths: NDArray[np.int64], boundary: Boundary, bos_id: int | None, eos_id: int | None
) -> NDArray[np.uint32]:
    """Put the boundary ids around each document.

    ``ids`` holds the documents end to end, ``lengths`` their sizes. Returns one flat array of
    sum(lengths) + len(lengths) * (1 or 2) ids.
    """
    front, back = boundary in ("bos", "both"), boundary in ("eos", "both")
    grown = lengths + int(front) + int(back)
    ends = np.cumsum(grown)
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint32)
    is_text = np.ones(len(out), np.bool_)
    if front:
        assert bos_id is not None
        starts = ends - grown
        out[starts] = bos_id
        is_text[starts] = False
    if back:
        assert eos_id is not None
        out[ends - 1] = eos_id
        is_text[ends - 1] = False
    out[is_text] = ids
    return out


class Packer:
    """Cuts a run of ids into rows of ``row`` ids, carrying the rest to the next call."""

    def __init__(self, row: int, dtype: str) -> None:
        self.row = row
        self.dtype = np.dtype(dtype)
        self.tail: NDArray[np.uint32] = np.empty(0, np.uint32)
        """Ids not yet part of a row; always shorter than one."""

    def add(self, ids: NDArray[np.uint32]) -> NDArray[np.unsignedinteger]:
        """Append ids; returns the completed rows, shape (n, row)."""
        joined = np.concatenate([self.tail, ids]) if len(self.tail) else ids
        rows = len(joined) // self.row
        self.tail = joined[rows * self.row :].copy()
        return joined[: rows * self.row].reshape(rows, self.row).astype(self.dtype, copy=False)


def join_tail(fragment: NDArray[np.uint32], boundary: Boundary, bos_id: int | None) -> tuple[NDArray[np.uint32], int]:
    """Prepare a unit's left-over ids for the shared tail: (ids, boundary ids added).

    A fragment may begin inside a document. Where an EOS ends the fragment before it, that is mark enough; under
    BOS-only boundaries it gets a BOS, so that two unrelated documents are never joined unnoticed.
    """
    if boundary != "bos" or not len(fragment) or int(fragment[0]) == bos_id:
        return fragment, 0
    assert bos_id is not None
    return np.concatenate([np.array([bos_id], np.uint32), fragment]), 1
