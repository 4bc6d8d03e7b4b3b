"""A disk that fills up in the middle of a build: a real small file system."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import recipe_dict, run_command, user_error, write_jsonl
from tests.corpus.test_build import build, tree_hashes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of which 1 MiB is free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        (folder / "ballast").write_bytes(bytes(7 << 20))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [{"text": rng.randbytes(500).hex()} for _ in range(3000)]  # does not compress well
    write_jsonl(tmp_path / "a.jsonl", texts)
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(recipe_dict({"a": ["a.jsonl"]}, unit_bytes=200_000)))
    build(recipe, tmp_path / "data")
    wanted = tree_hashes(tmp_path / "data")
    out = small_disk / "data"
    line = user_error(run_command("-m", "corpus.build", str(recipe), "--out", str(out), "--workers", "2"))
    assert "no space left" in line.lower() and str(out) in line
    assert not list(out.glob("streams/*/stream.json")) and not (out / "small" / "manifest.json").exists()
    finished = {name: digest for name, digest in tree_hashes(out).items() if "/units/" in name}
    assert finished.items() <= wanted.items()
    assert 0 < len(finished) < len(wanted)
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    build(recipe, out)
    assert tree_hashes(out) == wanted
