"""Notices in the middle of a build that cleaning leaves nothing of a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from corpus.base.errors import UserError


class Losses:
    """Documents read and dropped of each source, over the units of a run that are done."""

    def __init__(self, owners: list[str], whole: set[str], say: Callable[[str], None]) -> None:
        """``owners``: each job's source. ``whole``: sources all of whose units are among the jobs."""
        self._owners, self._say = owners, say
        self._left = {name: count for name, count in Counter(owners).items() if name in whole}
        self._seen: set[int] = set()
        self._read: Counter[str] = Counter()
        self._dropped: dict[str, Counter[str]] = {name: Counter() for name in owners}
        self._kept: set[str] = set()
        """Sources of which something was kept, or a warning was given."""

    def add(self, job: int, read: int, dropped: dict[str, int]) -> None:
        """A unit is done; raises UserError when with it all documents of a source are dropped."""
        if job in self._seen:
            return
        self._seen.add(job)
        name = self._owners[job]
        self._read[name] += read
        self._dropped[name].update(dropped)
        if name in self._left:
            self._left[name] -= 1
        lost = self._dropped[name].total()
        if lost < self._read[name]:
            self._kept.add(name)
            self._left.pop(name, None)
            return
        if not lost:
            return
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self._dropped[name].most_common())
        if self._left.get(name) == 0:
            raise UserError(
                f"all of its {lost:,} documents are dropped: {reasons}", where=f"source '{name}'",
                fix="Check its files, its adapter and the cleaning steps, or leave it out of the mixture.",
            )  # fmt: skip
        if name not in self._kept:
            self._kept.add(name)
            self._say(f"warning: source '{name}': all {lost:,} documents so far are dropped: {reasons}")
