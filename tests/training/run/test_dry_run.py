"""`--dry-run`: memory, time and lengths of what would be trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.trainer_kit import ROOT, build
from training.train import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    main([*map(str, arguments), "--dry-run"])
    return capsys.readouterr().out


def test_memory_knows_each_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    phases = ["--size", "950m", "--phases", f"{ROOT}/recipes/r1_phase1.yaml,{ROOT}/recipes/r1_sft_reasoning.yaml"]
    text = printed(capsys, *phases)
    short, long = (line for line in text.splitlines() if line.startswith("  memory, "))
    assert "r1_phase1" in short and "activations kept" in short and "of 256 at once" in short
    assert "r1_sft_reasoning" in long and "sequence of 32,768 (activations checkpointed)" in long
    assert "of 80 GB" in long and "not one" not in long
    off = printed(capsys, *phases, "--checkpoint-activations", "off")
    assert "not one sequence fits, of 80 GB per device; use --checkpoint-activations on" in off
    on = printed(capsys, *phases, "--checkpoint-activations", "on")
    days = [float(each.split("time: ")[1].split(" days")[0]) for each in (off, text, on)]
    assert days[0] < days[1] < days[2] == pytest.approx(4 / 3 * days[0], rel=0.01)
    assert ": 1 of 1 at once" in printed(capsys, *phases, "--device-batch", "1")
    # Nothing is left behind.
    assert not list(tmp_path.iterdir())


def test_a_short_run_is_told_in_words_and_no_length_but_the_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = build(tmp_path)
    text = printed(capsys, "--size", "tiny", "--recipe", recipe, "--data", tmp_path / "data")
    assert "time: less than a minute" in text and "e-0" not in text.split("time:")[1]
    assert "seq_len" not in text and "sequence of 32 " in text
