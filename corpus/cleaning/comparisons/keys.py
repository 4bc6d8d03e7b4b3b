"""What documents are compared by: keys of 128 bits, one or several to a document. Equal keys join two documents.

A unit's keys lie in _keys/<source>/<unit>.keys: a row of 64-bit numbers per document, its ordinal and two for each
key.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.base.files import atomic_write
from corpus.cleaning.comparisons.droplists import UnitRef

KEY_BYTES = 16
ROWS_AT_ONCE = 4096
"""Rows written together."""
KEYS = "_keys"
"""Folder of the units' keys inside a comparison's."""


def row_bytes(bands: int) -> int:
    """Size of a document's row with so many keys."""
    return 8 + KEY_BYTES * bands


def keys_file(folder: Path, ref: UnitRef) -> Path:
    """Where a unit's keys are kept; a file that is there is whole."""
    return ref.file(folder / KEYS, "keys")


def content_key(text: str) -> bytes:
    """The key of a text: texts are equal where it is."""
    # Lone surrogates cannot be encoded strictly, yet such a text must still equal itself.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def write_keys(folder: Path, ref: UnitRef, rows: Iterable[tuple[int, bytes]]) -> None:
    """Write a unit's (ordinal, keys one after the other), ordinals ascending; in memory that is bounded."""
    with atomic_write(keys_file(folder, ref)) as stream:
        block: list[bytes] = []
        for ordinal, keys in rows:
            block += struct.pack("<Q", ordinal), keys
            if len(block) >= 2 * ROWS_AT_ONCE:
                stream.write(b"".join(block))
                block.clear()
        stream.write(b"".join(block))


def count_keys(folder: Path, ref: UnitRef, bands: int) -> int:
    """Documents in a unit's file; raises UserError when it is missing or not whole."""
    path = keys_file(folder, ref)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(
            "an earlier cleaning pass is not finished", where=str(path), fix="Run the build again."
        ) from None
    if size % row_bytes(bands):
        raise UserError("is damaged", where=str(path), fix="Delete it and run the build again.")
    return size // row_bytes(bands)


def read_keys(folder: Path, ref: UnitRef, bands: int) -> NDArray[np.uint64]:
    """A unit's rows."""
    count_keys(folder, ref, bands)
    return np.fromfile(keys_file(folder, ref), "<u8").reshape(-1, row_bytes(bands) // 8)
