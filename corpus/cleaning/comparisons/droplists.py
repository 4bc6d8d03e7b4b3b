"""Drop lists: which documents of a unit a comparison removes, one small file per unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.base.files import atomic_write
from corpus.cleaning.reasons import DropReason


class UnitRef(NamedTuple):
    """A unit of a source.

    Comparisons take a list of these, in source order and then unit order: of two equal documents the one of the
    earlier unit stays, and inside a unit the one of the lower ordinal (its place among the unit's records).
    """

    source: str
    unit: int

    def file(self, folder: Path, ending: str) -> Path:
        """Path of this unit's file of one kind inside ``folder``."""
        return folder / self.source / f"{self.unit:06d}.{ending}"


@dataclass(frozen=True)
class DropList:
    """The documents of one unit to drop, and why."""

    table: bytes
    """One byte per ordinal, 1 for dropped; ordinals beyond the end are kept."""
    count: int
    """How many documents are dropped."""
    reason: DropReason

    def check(self, ordinal: int) -> str | None:
        """The reason to drop the document with this ordinal, or None to keep it."""
        return self.reason if ordinal < len(self.table) and self.table[ordinal] else None


def save_drop_list(folder: Path, ref: UnitRef, ordinals: NDArray[np.int64]) -> None:
    """Write a unit's dropped ordinals as a sorted int64 array in <folder>/<source>/<unit>.drop.npy."""
    save_array(ref.file(folder, "drop.npy"), np.sort(ordinals).astype("<i8"))


def load_drop_list(folder: Path, ref: UnitRef, reason: DropReason) -> DropList:
    """Read a unit's drop list; raises UserError when the pass that writes it has not been finished."""
    ordinals = load_array(ref.file(folder, "drop.npy"))
    table = np.zeros(int(ordinals[-1]) + 1 if len(ordinals) else 0, np.uint8)
    table[ordinals] = 1
    return DropList(table.tobytes(), len(ordinals), reason)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, complete or not at all."""
    with atomic_write(path) as stream:
        np.save(stream, array, allow_pickle=False)


def load_array(path: Path, mapped: bool = False) -> NDArray[Any]:
    """Read, or map, a .npy file of ours; raises UserError when it is not there or not whole."""
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(
            "an earlier cleaning pass is not finished", where=str(path), fix="Run the build again."
        ) from None
    except (ValueError, EOFError) as error:
        raise UserError(f"is damaged ({error})", where=str(path), fix="Delete it and run the build again.") from None
