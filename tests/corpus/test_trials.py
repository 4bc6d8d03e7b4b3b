"""Where builds lie: a trial beside the whole, and which of them a recipe's name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.base.errors import UserError
from corpus.base.numbers import count, short_count
from corpus.records.manifest import MANIFEST_FILE, find_build


def built(data: Path, *names: str) -> None:
    """Leave manifests."""
    for name in names:
        (data / name).mkdir(parents=True)
        (data / name / MANIFEST_FILE).write_text("{}")


def test_the_whole_build_goes_before_trials_and_one_trial_needs_no_name(tmp_path: Path) -> None:
    assert find_build(tmp_path, "mix") == tmp_path / "mix"
    built(tmp_path, "mix@20M", "other", "mix2@1k")
    assert find_build(tmp_path, "mix") == tmp_path / "mix@20M"
    built(tmp_path, "mix@4k")
    with pytest.raises(UserError, match=r"2 trials of it. Choose one with --max-tokens \(20M, 4k\)"):
        find_build(tmp_path, "mix")
    assert find_build(tmp_path, "mix", 4000) == tmp_path / "mix@4k"
    built(tmp_path, "mix")
    assert find_build(tmp_path, "mix") == tmp_path / "mix"


@pytest.mark.parametrize("number", [1, 999, 1000, 4000, 1_234_567, 20_000_000, 1_500_000_000, 2 * 10**12])
def test_names_of_trials_are_numbers_as_the_command_line_takes_them(number: int) -> None:
    assert count(short_count(number)) == number
