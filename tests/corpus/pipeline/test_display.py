"""What a build shows: bars with rates on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from corpus.base.numbers import file_size, si
from corpus.pipeline import display as progress
from corpus.pipeline.display import BuildDisplay, SourceTotals


def test_bars_show_each_source_with_its_rates() -> None:
    out = io.StringIO()
    totals = {"code": SourceTotals(100), "docs": SourceTotals(50)}
    with BuildDisplay(totals, Console(file=out, force_terminal=True, width=140)) as display:
        totals["code"].done_bytes, totals["code"].documents, totals["code"].tokens = 50, 10, 1000
        display.update()
    shown = out.getvalue()
    for wanted in ("code", "docs", "50%", "doc/s", "MB/s", "tok/s"):
        assert wanted in shown


def test_lines_without_a_terminal_come_seldom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = {"code": SourceTotals(100, done_bytes=50, documents=10)}
    with BuildDisplay(totals, Console(file=io.StringIO())) as display:
        display.update()
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
        display.update()
        assert capsys.readouterr().err.startswith("code: 50%")


def test_numbers_for_people() -> None:
    assert [si(n) for n in (0, 999, 1234, 5_600_000, 2.097e12)] == ["0", "999", "1.23k", "5.6M", "2.1T"]
    assert [file_size(n) for n in (12, 1_500, 2_500_000_000)] == ["12 B", "1.5 kB", "2.5 GB"]
