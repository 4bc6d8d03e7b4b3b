"""What continuous integration runs says what it could not install and what was skipped, and fails when tests fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOOLS = ("bash", "dirname", "env", "mktemp", "paste", "rm", "sed", "sort", "tee", "timeout")
SKIPS = """\
SKIPPED [2] tests/a.py:27: ray is not installed
SKIPPED [1] tests/b.py:9: no munged: install slurm-wlm and munge
"""


@pytest.mark.parametrize(("status", "skips"), [(0, SKIPS), (3, SKIPS), (0, "")])
def test_the_closing_line_tells_what_was_skipped(tmp_path: Path, status: int, skips: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        (programs / tool).symlink_to(str(shutil.which(tool)))
    scripts = {
        "make": f"case $1 in test) printf '%s' '{skips}'; echo 9 passed; exit {status};; esac",
        "apt-get": "echo asked apt; exit 100",
        "id": "echo 0",
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    run = shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    # Neither apt nor pip can be reached here: it goes on without them.
    result = subprocess.run(
        [run], env={"PATH": str(programs), "HOME": os.environ["HOME"]}, capture_output=True, text=True
    )
    assert result.returncode == status, result.stderr
    lines = result.stdout.splitlines()
    assert lines.count("asked apt") == 1
    assert "chromium cannot be installed: the tests of the report in a browser are skipped" in lines
    assert any(line.startswith("ray and lm-eval cannot be installed") for line in lines)
    wanted = (
        "tests/a.py: ray is not installed; tests/b.py: no munged: install slurm-wlm and munge" if skips else "nothing"
    )
    assert lines[-1] == f"skipped: {wanted}"
