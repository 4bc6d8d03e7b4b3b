"""Watches for sources of which nothing is kept: a build that will say so at its end says so at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from corpus.base.errors import UserError
from corpus.pipeline.run import Progress

ENOUGH = 16
"""Units of a source, from all over it, of which nothing was kept, before the rest is not tried."""


def spread_first(units: int) -> list[int]:
    """The order in which so many units are made: the first one, some that lie evenly over the source, the rest."""
    first = [units * part // ENOUGH for part in range(ENOUGH)] if units > ENOUGH else list(range(units))
    taken = set(first)
    return first + [place for place in range(units) if place not in taken]


class Barren:
    """What was kept of each source in one run of units."""

    def __init__(self, owners: Sequence[str], whole: Collection[str], say: Callable[[str], None]) -> None:
        """``owners``: each job's source. ``whole``: the sources all of whose units are among the jobs."""
        self._say = say
        self._owners, self._whole = owners, whole
        self._jobs = Counter(owners)
        self._done = Counter[str]()
        self._lost = Counter[str]()
        self._alive: set[str] = set()
        self._counted: set[int] = set()

    def check(self, progress: Progress) -> list[str]:
        """Whole sources that were done since the last look.

        Raises UserError naming each source that will yield nothing, once it is known of every source whether it is one.
        """
        finished = []
        for index in progress.done - self._counted:
            self._counted.add(index)
            name = self._owners[index]
            self._done[name] += 1
            if index in progress.barren:
                self._lost[name] += 1
                if self._lost[name] == 1 and name not in self._alive and self._jobs[name] > 1:
                    self._say(f"warning: {self._told(name, progress)}")
            elif progress.counts[index][0]:  # a slice may hold no record at all
                self._alive.add(name)
            if self._is_done(name):
                finished.append(name)
        empty = [name for name in self._jobs if name not in self._alive]
        if not all(map(self._is_enough, empty)):
            return finished
        told = [self._told(name, progress) for name in empty if self._lost[name]]
        fix = "Check its files, its adapter and the cleaning steps, or leave it out of the mixture."
        if len(told) == 1:
            raise UserError(told[0], fix=fix)
        if told:
            what = f"nothing is kept of {len(told)} of {len(self._jobs)} sources, so the build was stopped"
            raise UserError(what, fix=fix, details=told)
        return finished

    def _is_done(self, name: str) -> bool:
        return self._done[name] == self._jobs[name] and name in self._whole

    def _is_enough(self, name: str) -> bool:
        return self._lost[name] >= ENOUGH or self._is_done(name)

    def _told(self, name: str, progress: Progress) -> str:
        dropped, first = Counter[str](), dict[str, str]()
        for index in sorted(index for index in progress.barren if self._owners[index] == name):
            lost, where = progress.barren[index]
            dropped.update(lost)
            first = {**where, **first}
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.most_common())
        places = ", ".join(f"{reason} {first[reason]}" for reason, _ in dropped.most_common())
        tried = "" if self._is_done(name) else f" in the {self._done[name]:,} units tried (of {self._jobs[name]:,})"
        what = f"all of its {dropped.total():,} documents{tried} are dropped: {reasons}"
        return f"source '{name}': {what}; the first: {places}"
