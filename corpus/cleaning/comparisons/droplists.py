"""Drop lists: which documents of a unit a comparison removes, and for which one each; one small file per unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.base.files import atomic_write
from corpus.cleaning.reasons import DropReason

Ids = NDArray[np.uint64]
"""Documents of a comparison as numbers: see document_id."""

ORDINAL_BITS = 32
"""Of a document's number; the bits above are its unit's place in the comparison."""


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


def document_id(position: int, ordinal: int = 0) -> int:
    """The number of a document: of two, the one with the lower number is the earlier."""
    return position << ORDINAL_BITS | ordinal


@dataclass(frozen=True)
class DropList:
    """The documents of one unit to drop, and why."""

    table: bytes
    """One byte per ordinal, 1 for dropped; ordinals beyond the end are kept."""
    ordinals: Ids
    """Of the documents to drop, in order."""
    kept: Ids
    """For each of them the number of the document that stays in its place."""
    reason: DropReason

    def check(self, ordinal: int) -> str | None:
        """The reason to drop the document with this ordinal, or None to keep it."""
        return self.reason if ordinal < len(self.table) and self.table[ordinal] else None

    def kept_for(self, ordinal: int) -> tuple[int, int]:
        """(its unit's place in the comparison, ordinal) of the document that stays for one that is dropped."""
        number = int(self.kept[np.searchsorted(self.ordinals, np.uint64(ordinal))])
        return number >> ORDINAL_BITS, number & (1 << ORDINAL_BITS) - 1


def save_drop_list(folder: Path, ref: UnitRef, ordinals: Ids, kept: Ids) -> None:
    """Write a unit's dropped ordinals, in order, and what stays for each, in <folder>/<source>/<unit>.drop.npy."""
    save_array(ref.file(folder, "drop.npy"), np.stack([ordinals, kept]).astype("<u8"))


def load_drop_list(folder: Path, ref: UnitRef, reason: DropReason) -> DropList:
    """Read a unit's drop list; raises UserError when the pass that writes it has not been finished."""
    ordinals, kept = load_array(ref.file(folder, "drop.npy"))
    table = np.zeros(int(ordinals[-1]) + 1 if len(ordinals) else 0, np.uint8)
    table[ordinals] = 1
    return DropList(table.tobytes(), ordinals, kept, reason)


def save_ids(folder: Path, ref: UnitRef, names: Iterable[str]) -> None:
    """Keep what a unit's documents are called, for records that name one; no name holds a line break."""
    import zstandard

    text = "".join(name.replace("\n", " ") + "\n" for name in names)
    with atomic_write(ref.file(folder, "ids.zst")) as stream:
        stream.write(zstandard.compress(text.encode("utf-8", "surrogatepass")))


def load_ids(folder: Path, ref: UnitRef) -> list[str] | None:
    """What save_ids kept, by ordinal; None where nothing was."""
    import zstandard

    try:
        stored = ref.file(folder, "ids.zst").read_bytes()
    except FileNotFoundError:
        return None
    return zstandard.decompress(stored).decode("utf-8", "surrogatepass").split("\n")[:-1]


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
