"""The phases of a command: where their recipes are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.model.shapes import CURRICULA
from training.run.options import parse_args
from training.run.phases import plan


def test_a_curriculum_is_found_beside_the_source_and_in_the_folder_at_hand_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = parse_args(["--size", "950m"])
    names = list(CURRICULA["r1"])
    phases = plan(options)
    assert [phase.name for phase in phases] == names
    own = tmp_path / "recipes" / f"{names[0]}.yaml"
    own.parent.mkdir()
    own.write_text(phases[0].path.read_text())
    assert [phase.path.is_absolute() for phase in plan(options)] == [False, *[True] * (len(names) - 1)]
