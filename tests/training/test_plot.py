"""The plot command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from corpus.base.errors import UserError
from training.plot import main
from training.run.plotting import running_steps, smooth


def _row(phase: int, step: int) -> dict[str, Any]:
    sources = {"a": 2.0, "b": 3.0} if step % 2 else {"a": 2.0}
    return {"phase": phase, "step": step, "loss": 5 / step, "lr": 1e-3, "tokens_per_s": 100.0, "sources": sources}


def _run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_runs_become_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = _run(tmp_path / "one", [_row(0, step) for step in range(1, 90)])
    two = _run(tmp_path / "two", [*(_row(0, step) for step in range(1, 4)), _row(1, 1)])
    main([str(one), str(two), "--to", str(tmp_path / "both.png")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "both.png")
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.size[0] > 800
    main([str(one)])
    assert (one / "loss.png").is_file()


def test_a_folder_without_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="no steps"):
        main([str(_run(tmp_path / "empty", []))])


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", [_row(0, 1), _row(0, 2)])
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"phase": 0, "st')
    main([str(run)])


def test_steps_run_on_over_phases_and_curves_are_running_means() -> None:
    rows = [_row(0, 1), _row(0, 2), _row(1, 1), _row(1, 2), _row(2, 1)]
    assert running_steps(rows) == [1, 2, 3, 4, 5]
    assert smooth([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]
