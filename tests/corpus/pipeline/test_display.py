"""What a build shows: bars with rates on a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
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
        assert capsys.readouterr().err.startswith("code: 50% (50 B of 100 B)")


def test_lines_tell_what_moves_and_finished_sources_stand_still(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    totals = {"code": SourceTotals(1000), "docs": SourceTotals(3_600_000), "later": SourceTotals(10)}

    def lines() -> list[str]:
        display.update()
        return capsys.readouterr().err.splitlines()

    with BuildDisplay(totals, Console(file=io.StringIO())) as display:
        assert lines() == []
        totals["code"].done_bytes, totals["code"].documents = 10, 1
        lines()
        now += 10
        totals["code"] = dataclasses.replace(totals["code"], done_bytes=1000, documents=30, text_bytes=5_000_000)
        totals["docs"].done_bytes, totals["docs"].documents, totals["docs"].tokens = 1000, 2, 500
        assert lines()[0] == "code: 100% (1 kB of 1 kB)  3 doc/s  0.5 MB/s  done in 0:10"
        now += 10
        totals["docs"].done_bytes = 2000
        (docs,) = lines()  # what is done or waits is not told again
        assert docs == "docs: 0% (2 kB of 3.6 MB)  0 doc/s  0.0 MB/s  50 tok/s  about 4:59:50 left"
        assert lines() == []


def test_numbers_for_people() -> None:
    assert [si(n) for n in (0, 999, 1234, 5_600_000, 2.097e12)] == ["0", "999", "1.23k", "5.6M", "2.1T"]
    assert [file_size(n) for n in (12, 1_500, 2_500_000_000)] == ["12 B", "1.5 kB", "2.5 GB"]
