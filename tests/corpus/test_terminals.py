"""Commands on terminals and in folders that know less than Unicode, or other bytes than UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, run_command


def said(encoding: str, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a command on a terminal of that encoding."""
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment(PYTHONIOENCODING=encoding), capture_output=True)
    return result.returncode, (result.stdout + result.stderr).decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_a_terminal_has_not_are_escaped(
    make_recipe: Callable[..., Path], tmp_path: Path, encoding: str
) -> None:
    recipe, out = make_recipe(), tmp_path / "data"
    text = "数学" if encoding == "utf-8" else "\\u6570\\u5b66"
    assert said(encoding, "corpus.build", str(recipe), "--out", str(out), "--workers", "1")[0] == 0
    status, shown = said(encoding, "corpus.inspect", str(out / "small"), "--samples", "8", "a")
    assert status == 0 and text in shown
    status, shown = said(encoding, "corpus.build", "数学.yaml")
    assert status == 2 and shown.startswith(f"error: {text}.yaml: no such file")


def test_folders_whose_names_are_no_utf_8(make_recipe: Callable[..., Path], tmp_path: Path) -> None:
    inside = tmp_path / os.fsdecode(b"in-\xff\xe9")
    inside.mkdir()
    make_recipe()
    for file in list(tmp_path.glob("*.*")):
        file.rename(inside / file.name)
    out = inside / os.fsdecode(b"out-\xff")
    built = run_command("-m", "corpus.build", str(inside / "small.yaml"), "--out", str(out), "--workers", "2")
    assert built.returncode == 0, built.stderr
    assert "out-\\udcff" in built.stderr
    assert run_command("-m", "corpus.inspect", str(out / "small"), "--verify").returncode == 0
