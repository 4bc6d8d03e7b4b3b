"""The cache of unpacked shards: whose it is, where it lies, and that a run reads built data without writing to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from corpus.base.errors import UserError
from tests.training.trainer_kit import Ranks, build, trajectory
from training.run.cache import cache_folder
from training.run.options import Options, parse_args


def options(cache: Path, *more: str) -> Options:
    return parse_args(["--size", "tiny", "--recipe", "r.yaml", "--cache", str(cache), *more])


def test_every_user_can_make_a_folder_and_enters_only_their_own(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = cache_folder(options(tmp_path / "deep" / "cache"))
    finally:
        os.umask(before)
    root = tmp_path / "deep" / "cache"
    assert root.stat().st_mode & 0o7777 == 0o1777
    assert folder == root / f"user-{os.getuid()}" / "streams"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    limited = cache_folder(options(root, "--cache-limit", "1.5GB"))
    other = cache_folder(options(root, "--cache-limit", "1.5GB", "--run-name", "other"))
    assert len({folder, limited, other}) == 3 and limited.is_relative_to(folder.parent)


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    (tmp_path / f"user-{mine + 1}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(UserError, match=r"belongs to another user.*--cache"):
        cache_folder(options(tmp_path))


def test_a_place_that_cannot_hold_a_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*cannot be made: Not a directory.*--cache"):
        cache_folder(options(tmp_path / "file" / "cache"))


def test_a_limit_is_read_as_other_sizes_are() -> None:
    assert options(Path("x"), "--cache-limit", "100GB").cache_limit == 100 * 10**9
    assert options(Path("x")).cache_limit is None


def _digests(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_run_trains_from_data_it_may_not_write_with_and_without_a_limit(tmp_path: Path) -> None:
    recipe = build(tmp_path, steps=6)
    data = tmp_path / "data"
    before = _digests(data)
    subprocess.run(["chmod", "-R", "a-w", str(data)], check=True)
    try:
        for name, limit in (("all", []), ("some", ["--cache-limit", "20K"])):
            places = ["--data", str(data), "--out", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
            command = ["--size", "tiny", "--recipe", str(recipe), "--run-name", name, *places, *limit]
            ranks = Ranks(command, 1, tmp_path / name)
            assert ranks.wait() == 0, ranks.output()
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(data)], check=True)
    assert _digests(data) == before
    assert len(trajectory(tmp_path / "runs" / "all")) == 6
    assert trajectory(tmp_path / "runs" / "all") == trajectory(tmp_path / "runs" / "some")
    kept = [path for path in (tmp_path / "cache").rglob("*.mds") if "runs" in path.parts[-4:]]
    assert kept and sum(path.stat().st_size for path in kept) <= 20_000
