"""A data folder that is only to be read: what was finished there is said to be, and other errors are of the place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, environment, run_command, user_error

MOUNT = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def read_only(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours with ``folder`` mounted read-only."""
    inside = ["unshare", "--mount", "bash", "-c", MOUNT, "-", str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("mounting a folder read-only needs root")
    command = [*inside, sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)


def test_a_finished_build_says_so(make_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = make_recipe()
    raw = yaml.safe_load(recipe.read_text())
    raw["mixture"]["docs"] = {"source": "python_qa", "weight": 1.0}
    recipe.write_text(yaml.safe_dump(raw))
    arguments = ["corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--workers", "2"]
    assert run_command("-m", *arguments).returncode == 0
    again = read_only(tmp_path / "data", *arguments)
    assert again.returncode == 0, again.stderr
    assert "finished before:" in again.stderr and "small/manifest.json" in again.stderr
    raw["tokens"] *= 2
    recipe.write_text(yaml.safe_dump(raw))
    other = user_error(read_only(tmp_path / "data", *arguments))
    assert "Read-only file system" in other
    raw["seq_len"], raw["tokens"] = 16, 64 * 100
    recipe.write_text(yaml.safe_dump(raw))
    fresh = user_error(read_only(tmp_path / "data", *arguments))
    assert "Read-only file system" in fresh and "cannot be read" not in fresh


def test_a_recipes_copy_holds_no_secrets(make_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = make_recipe()
    recipe.write_text("# from https://me:SECRET@host/a.jsonl?sig=SECRET\n" + recipe.read_text())
    out = tmp_path / "data"
    assert run_command("-m", "corpus.build", str(recipe), "--out", str(out), "--workers", "1").returncode == 0
    copy = (out / "small" / "recipe.yaml").read_text()
    assert "# from https://host/a.jsonl#query-" in copy and "SECRET" not in copy
    assert yaml.safe_load(copy) == yaml.safe_load(recipe.read_text())
