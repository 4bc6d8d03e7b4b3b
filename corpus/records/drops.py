"""What became of records that were dropped, told to people: how many for each reason, and where the first was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

FirstDrops = Mapping[str, str]
"""Reason -> where the first record dropped for it is (FILE:place), and by which cleaning step."""


def account(read: int, kept: int, dropped: Counter[str], first: FirstDrops) -> str:
    """How many records were read, and what they were dropped for, most frequent reasons first."""
    told = f"{read:,} records read, {kept:,} kept"
    if not dropped:
        return told
    told += f", the others dropped ({', '.join(f'{reason} {count:,}' for reason, count in dropped.most_common())})"
    places = [f"{reason} {first[reason]}" for reason, _ in dropped.most_common() if reason in first]
    return f"{told}; the first: {', '.join(places)}" if places else told
