"""The plot command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from corpus.base.errors import UserError
from training.plot import main
from training.run.plotting import figure_of, running_steps, smooth


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


def test_the_legend_of_many_runs_is_short_and_covers_no_curve() -> None:
    sources = [f"source-number-{n}" for n in range(6)]
    rows = [{**_row(0, step), "sources": dict.fromkeys(sources, 2.0)} for step in range(1, 9)]
    figure = figure_of({f"a-run-with-a-long-name-{n}": rows for n in range(5)})
    figure.canvas.draw()
    for axis in figure.axes:
        legend = axis.get_legend()
        assert legend is not None and len(legend.get_texts()) <= 6 + 5
        box, frame = legend.get_window_extent(), figure.bbox
        assert box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0
        if len(legend.get_texts()) > 6:
            assert box.y1 < axis.get_window_extent().y0
    styles = {line.get_linestyle() for line in figure.axes[1].get_lines()}
    colours = {tuple(line.get_color()) for line in figure.axes[1].get_lines()}
    assert len(colours) == 6 and len(styles) >= 4


def test_two_runs_of_one_name_are_both_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.plot

    drawn: list[str] = []
    monkeypatch.setattr(training.plot, "draw", lambda runs, to: drawn.extend(runs))
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        _run(tmp_path / place / "run", [_row(0, 1)])
    main([str(tmp_path / "here" / "run"), str(tmp_path / "there" / "run")])
    assert drawn == [str(tmp_path / "here" / "run"), str(tmp_path / "there" / "run")]
