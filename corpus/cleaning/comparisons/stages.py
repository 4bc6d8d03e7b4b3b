"""From the keys of all units to a drop list for each, in stages of jobs that any worker can do in any order.

    group   units' keys -> groups of units, sorted by key
    match   a range of keys over all groups -> pairs (later document, first document with the same key)
    join    minhash only, in rounds: pairs -> pairs with the first document of each component
    list    the pairs of a group's documents -> its units' drop lists

A job reads one file after the other, holds a bounded part of them, and writes one file that is there whole or not at
all: that is its mark, so a comparison that was stopped anywhere goes on with the jobs that are missing. Each stage ends
in a mark of its own, after which what it was made from is deleted. No number of jobs or order of them changes a list.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpus.base.files import read_json, write_json
from corpus.cleaning.comparisons.components import BYTES_PER_PAIR, connect, distinct
from corpus.cleaning.comparisons.droplists import Ids, UnitRef, document_id, load_array, save_array, save_drop_list
from corpus.cleaning.comparisons.keys import KEYS, count_keys, read_keys, row_bytes

JOB_MEMORY = 512 << 20
"""Bytes a job may hold, about; a single unit's keys, and the pairs of the largest component, are held in any case."""
BYTES_PER_MATCH = 96
"""Peak memory of a match per document: its key and number, their sorted copies and the order."""

PLAN, MATCHED, JOINED, DONE = "plan.json", "matched.json", "joined.json", "done.json"


class Stage(NamedTuple):
    """Jobs that can be done side by side."""

    name: str
    jobs: list[int]
    """Numbers of those that are not done."""


class _Plan(NamedTuple):
    """How a comparison is cut into jobs; made once, from the sizes of all units' keys."""

    counts: list[int]
    """Documents with keys, per unit."""
    groups: list[tuple[int, int]]
    """(first unit, last + 1) of each."""
    partitions: int
    """Ranges of keys."""


class Comparison:
    """The work between the units' keys and their drop lists; all state lies in ``folder``."""

    def __init__(
        self, folder: Path, units: Sequence[UnitRef], bands: int, joins: bool, memory: int = JOB_MEMORY
    ) -> None:
        self.folder, self.units, self.bands, self.joins, self.memory = folder, units, bands, joins, memory

    @property
    def done(self) -> bool:
        """Whether all drop lists are there."""
        return (self.folder / DONE).is_file()

    @property
    def collected(self) -> bool:
        """Whether the units' keys are no longer needed."""
        return (self.folder / PLAN).is_file()

    def next_stage(self) -> Stage | None:
        """The jobs to do now, or None when all is done; call it again when they are. It never reads a document.

        Raises UserError when a unit's keys are missing.
        """
        while not self.done:
            stage = self._stage()
            if stage.jobs:
                return stage
            self._finish(stage.name)
        for scratch in (KEYS, "_groups", "_pairs", "_joins", "_lists"):
            shutil.rmtree(self.folder / scratch, ignore_errors=True)
        return None

    def _stage(self) -> Stage:
        if not self.collected:
            self._make_plan()
        if (self.folder / JOINED).is_file() or (not self.joins and (self.folder / MATCHED).is_file()):
            return self._missing("list", [self._list_mark(group) for group in range(len(self._plan.groups))])
        if (self.folder / MATCHED).is_file():
            name, parts = self._join_round()
            return self._missing(name, [self.folder / "_joins" / name / f"{part}.json" for part in range(parts)])
        groups = [self._group_file(group) for group in range(len(self._plan.groups))]
        if (stage := self._missing("group", groups)).jobs:
            return stage
        return self._missing("match", self._pair_files())

    def _missing(self, name: str, marks: list[Path]) -> Stage:
        return Stage(name, [number for number, mark in enumerate(marks) if not mark.is_file()])

    def _finish(self, name: str) -> None:
        """Write the stage's own mark, then delete what it was made from."""
        if name == "match":
            pairs = sum(load_array(path, mapped=True).shape[1] for path in self._pair_files())
            write_json(self.folder / MATCHED, {"parts": max(1, -(-pairs * BYTES_PER_PAIR // self.memory))})
            for scratch in (KEYS, "_groups"):
                shutil.rmtree(self.folder / scratch, ignore_errors=True)
        elif name.startswith("join"):
            shutil.rmtree(self.folder / "_joins" / f"join-{int(name[5:]) - 2}", ignore_errors=True)
            marks = [read_json(path) for path in (self.folder / "_joins" / name).glob("*.json")]
            last = len(marks) == 1 or (int(name[5:]) % 2 == 1 and not any(mark["changed"] for mark in marks))
            if last:
                write_json(self.folder / JOINED, {"round": name})
            else:
                write_json(self.folder / "_joins" / f"{name}.json", {"done": True})
        elif name == "list":
            dropped = sum(read_json(self._list_mark(group))["dropped"] for group in range(len(self._plan.groups)))
            write_json(self.folder / DONE, {"units": len(self.units), "dropped": dropped})

    def run(self, name: str, number: int) -> None:
        """Do one job of a stage."""
        if name == "group":
            self._group(number)
        elif name == "match":
            self._match(*divmod(number, self._plan.partitions))
        elif name == "list":
            self._list(number)
        else:
            self._join(name, number)

    # Where things are.

    def _group_file(self, group: int) -> Path:
        return self.folder / "_groups" / f"{group:06d}.npy"

    def _pair_files(self) -> list[Path]:
        """Those of match, in the order of its jobs."""
        return [self.folder / "_pairs" / f"{number:06d}.npy" for number in range(self.bands * self._plan.partitions)]

    def _list_mark(self, group: int) -> Path:
        return self.folder / "_lists" / f"{group:06d}.json"

    @property
    def rows(self) -> int:
        """Keys of all documents; known once there is a plan."""
        return self.bands * sum(self._plan.counts)

    @functools.cached_property
    def _plan(self) -> _Plan:
        stored = read_json(self.folder / PLAN)
        return _Plan(stored["counts"], [(first, last) for first, last in stored["groups"]], stored["partitions"])

    # The stages.

    def _make_plan(self) -> None:
        counts = [count_keys(self.folder, ref, self.bands) for ref in self.units]
        # A group is held as it is read and once more as it is written.
        most = self.memory // (2 * row_bytes(self.bands) + 8 * self.bands)
        groups: list[tuple[int, int]] = []
        first = rows = 0
        for position, count in enumerate(counts):
            if position > first and rows + count > most:
                groups.append((first, position))
                first, rows = position, 0
            rows += count
        if counts:
            groups.append((first, len(counts)))
        partitions = max(1, -(-sum(counts) * BYTES_PER_MATCH // self.memory))
        write_json(self.folder / PLAN, {"counts": counts, "groups": groups, "partitions": partitions})

    def _group(self, group: int) -> None:
        """Keys of a group's units, each band sorted by key: rows high half, low half, document.

        The first row has the places where the ranges of keys end before these, all but the last.
        """
        plan = self._plan
        first, last = plan.groups[group]
        rows, ids = [], []
        for position in range(first, last):
            read = read_keys(self.folder, self.units[position], self.bands)
            ids.append(read[:, 0] + np.uint64(document_id(position)))
            rows.append(read[:, 1:])
        keys, numbers = np.concatenate(rows), np.concatenate(ids)
        del rows, ids
        ends = _range_ends(plan.partitions)
        width = len(ends) + len(numbers)
        result = np.empty((self.bands, 3, width), "<u8")
        for band in range(self.bands):
            high, low = keys[:, 2 * band], keys[:, 2 * band + 1]
            order = np.lexsort((low, high))  # stable: equal keys stay in the order of documents
            for row, column in zip(result[band], (high, low, numbers), strict=True):
                row[len(ends) :] = column[order]
            result[band, 0, : len(ends)] = np.searchsorted(result[band, 0, len(ends) :], ends)
        save_array(self._group_file(group), result)

    def _match(self, band: int, partition: int) -> None:
        plan = self._plan
        skip = len(_range_ends(plan.partitions))
        pieces = []
        for group in range(len(plan.groups)):
            content = load_array(self._group_file(group), mapped=True)[band]
            begin = int(content[0, partition - 1]) if partition else 0
            end = int(content[0, partition]) if partition < skip else content.shape[1] - skip
            pieces.append(np.array(content[:, skip + begin : skip + end]))
        high, low, ids = np.concatenate(pieces, axis=1) if pieces else np.empty((3, 0), "<u8")
        del pieces
        # Stable, over groups in order: the documents of a key stay in order.
        order = np.lexsort((low, high))
        high, low, ids = high[order], low[order], ids[order]
        same = np.zeros(len(ids), np.bool_)
        same[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        heads = np.flatnonzero(~same)
        repeats = np.flatnonzero(same)
        firsts = ids[heads[np.searchsorted(heads, repeats, side="right") - 1]] if len(repeats) else ids[:0]
        later = ids[repeats]
        order = np.argsort(later)
        save_array(self._pair_files()[band * plan.partitions + partition], np.stack([later[order], firsts[order]]))

    def _join_round(self) -> tuple[str, int]:
        """(name, number of jobs) of the round in hand."""
        done = sum(1 for _ in (self.folder / "_joins").glob("join-*.json"))
        return f"join-{done}", int(read_json(self.folder / MATCHED)["parts"])

    def _part_bounds(self, parts: int) -> Ids:
        """Documents at which the parts begin, and one beyond the last: the same number of documents in each, about."""
        ends = np.cumsum(self._plan.counts)
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts) if len(ends) else np.zeros(parts - 1)
        return np.array([0, *(document_id(int(cut)) for cut in cuts), document_id(len(self.units))], np.uint64)

    def _join(self, name: str, part: int) -> None:
        current, parts = self._join_round()
        assert name == current, "the rounds of a join are done one after the other"
        number = int(name[5:])
        low, high = self._part_bounds(parts)[part : part + 2]
        touching = number % 2 == 1
        if number == 0:
            slices = [_between(load_array(path, mapped=True), low, high) for path in self._pair_files()]
        else:
            slices = []
            for other in range(parts):
                stored = load_array(self.folder / "_joins" / f"join-{number - 1}" / f"{other}.npy", mapped=True)
                slices.append(_between(stored[0], low, high))
                if touching:
                    slices.append(_between(stored[1], low, high)[::-1])
        before = distinct(*np.concatenate(slices, axis=1))
        later, earlier = connect(*before)
        changed = len(later) != len(before[0]) or bool((later != before[0]).any() or (earlier != before[1]).any())
        order = np.argsort(earlier, kind="stable")
        both = np.stack([np.stack([later, earlier]), np.stack([earlier[order], later[order]])])
        save_array(self.folder / "_joins" / name / f"{part}.npy", both)
        write_json(self.folder / "_joins" / name / f"{part}.json", {"changed": changed})

    def _list(self, group: int) -> None:
        first, last = self._plan.groups[group]
        low, high = np.uint64(document_id(first)), np.uint64(document_id(last))
        if self.joins:
            name = read_json(self.folder / JOINED)["round"]
            files = sorted((self.folder / "_joins" / name).glob("*.npy"))
            slices = [_between(load_array(path, mapped=True)[0], low, high) for path in files]
        else:
            slices = [_between(load_array(path, mapped=True), low, high) for path in self._pair_files()]
        # In the last round of a join, the parts of both documents have the pair.
        later, kept = distinct(*np.concatenate(slices, axis=1))
        bounds = np.array([document_id(position) for position in range(first, last + 1)], np.uint64)
        for position, (begin, end) in enumerate(pairwise(np.searchsorted(later, bounds).tolist()), first):
            ordinals = later[begin:end] - np.uint64(document_id(position))
            save_drop_list(self.folder, self.units[position], ordinals, kept[begin:end])
        write_json(self._list_mark(group), {"dropped": len(later)})


def _range_ends(partitions: int) -> Ids:
    """High halves of keys at which the ranges end, but for the last."""
    return np.array([(1 << 64) * part // partitions for part in range(1, partitions)], np.uint64)


def _between(pairs: NDArray[Any], low: np.uint64, high: np.uint64) -> NDArray[np.uint64]:
    """The pairs whose first document is in [low, high), out of pairs in the order of that; a copy."""
    begin, end = np.searchsorted(pairs[0], np.array([low, high], np.uint64))
    return np.array(pairs[:, begin:end])
