"""Attempts at a build, and what one leaves for the next: no unit without its bytes, whoever is still writing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corpus.base.errors import UserError
from corpus.base.files import discard_dir, missing_shards, publish_dir
from corpus.pipeline import attempts
from corpus.pipeline.attempts import OWNER_FILE, attempt, clear_dead_attempts
from corpus.streams.mds import ShardWriter
from tests.conftest import ROOT, environment, run_command
from tests.corpus.test_build import build, tree_hashes

MakeRecipe = Callable[..., Path]


def write_unit(folder: Path, pause: float = 0.0) -> None:
    """Twenty shards, each written after the other."""
    rows = np.zeros((16, 65), np.uint16)
    with ShardWriter(folder, 64, "uint16", shard_bytes=16 * 134) as writer:
        for _ in range(20):
            writer.write(rows)
            time.sleep(pause)
    (folder / "unit.json").write_text("{}")


@pytest.mark.parametrize("delete", [discard_dir, lambda folder: shutil.rmtree(folder, ignore_errors=True)])
def test_a_worker_that_outlives_its_build_publishes_all_or_nothing(
    tmp_path: Path, delete: Callable[[Path], object]
) -> None:
    rng = random.Random(5)
    outcomes = {"published": 0, "failed": 0}
    for trial in range(150):
        work, final = tmp_path / "work", tmp_path / "units" / f"{trial:06d}"
        beside = work / "000000-x"
        beside.mkdir(parents=True)

        def worker(beside: Path = beside, final: Path = final) -> None:
            try:
                write_unit(beside, 0.0001)
                publish_dir(beside, final)
                outcomes["published"] += 1
            except (OSError, UserError):
                outcomes["failed"] += 1

        thread = threading.Thread(target=worker)
        thread.start()
        time.sleep(rng.uniform(0, 0.03))
        delete(work)
        thread.join()
        if final.is_dir():
            assert not missing_shards(final) and (final / "unit.json").is_file()
        shutil.rmtree(work, ignore_errors=True)
    assert outcomes["failed"]


def test_publishing_refuses_what_its_index_does_not_find(tmp_path: Path) -> None:
    for harm in (lambda shard: shard.unlink(), lambda shard: shard.write_bytes(b"short")):
        beside, final = tmp_path / "work", tmp_path / "unit"
        beside.mkdir()
        write_unit(beside)
        harm(beside / "shard.00003.mds.zstd")
        with pytest.raises(UserError, match=r"shard\.00003"):
            publish_dir(beside, final)
        assert not final.exists()
        shutil.rmtree(beside)


def test_only_what_is_known_to_be_dead_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(name: str, **owner: object) -> list[Path]:
        """What a build leaves: its scratch, and its part of a stream."""
        scratch, part = tmp_path / ".build" / name, tmp_path / "streams" / "s" / "work" / name / "000000-ab-1"
        (scratch / "run-1").mkdir(parents=True)
        part.mkdir(parents=True)
        (scratch / OWNER_FILE).write_text(json.dumps(owner))
        return [scratch, part]

    with attempt(tmp_path, "living") as living:
        here = json.loads((living / OWNER_FILE).read_bytes())
        kept = [living, *left("elsewhere", **{**here, "host": "another"})]
        gone = left("dead", **{**here, "pid": 2**22 + 1})
        gone += left("number-reused", **{**here, "started": "1"})
        (tmp_path / ".build" / "corpus" / "exact_dedup-1").mkdir(parents=True)
        (tmp_path / "streams" / "s" / "work" / "unknown").mkdir()
        clear_dead_attempts(tmp_path)
        assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)
        assert (tmp_path / ".build" / "corpus" / "exact_dedup-1").is_dir()
        assert (tmp_path / "streams" / "s" / "work" / "unknown").is_dir()
        monkeypatch.setattr(attempts, "_is_silent", lambda *_: True)
        clear_dead_attempts(tmp_path)
        assert living.exists() and not any(path.exists() for path in kept[1:])
    assert not living.exists() and not (tmp_path / "streams" / "s" / "work").exists()


def test_jobs_of_a_dead_build_are_taken_off_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/cancelled\n')
    (programs / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with attempt(tmp_path, "small") as folder:
        owner = json.loads((folder / OWNER_FILE).read_bytes())
    run = tmp_path / ".build" / "small-dead" / "run-7"
    run.mkdir(parents=True)
    (run / "executor.json").write_text('{"kind": "slurm", "partition": "p", "time": "1:00", "lost_after": 60}')
    (run.parent / OWNER_FILE).write_text(json.dumps({**owner, "pid": 2**22 + 1}))
    clear_dead_attempts(tmp_path)
    assert "--name=corpus-" in (tmp_path / "cancelled").read_text()
    assert run.is_dir()  # its workers may live on for lost_after seconds


def test_killed_builds_leave_nothing_for_ever_and_the_next_needs_none_of_it(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe, data = make_recipe(), tmp_path / "data"
    command = [sys.executable, "-m", "corpus.build", str(recipe), "--out", str(data), "--workers", "1"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(data.glob("streams/*/units/*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((data / ".build").glob("small-*"))
    build(recipe, data)
    assert not list((data / ".build").glob("small-*")) and not list(data.glob("streams/*/work"))
    wanted = tree_hashes(data)
    # A stream whose record and one shard were lost: the unit is made again, not vouched for.
    stream = next(data.glob("streams/a-*"))
    (stream / "stream.json").unlink()
    next(stream.glob("units/000001/*.zstd")).unlink()
    shutil.rmtree(data / ".build")
    told = run_command("-m", "corpus.build", str(recipe), "--out", str(data))
    assert told.returncode == 0 and "lost some of their bytes" in told.stderr, told.stderr
    assert tree_hashes(data) == wanted
    # Finished streams somewhere else, without the rest.
    shutil.copytree(data / "streams", tmp_path / "copy" / "streams")
    shutil.copytree(data / "tokenizers", tmp_path / "copy" / "tokenizers")
    build(recipe, tmp_path / "copy")
    assert not list((tmp_path / "copy" / ".build").glob("small-*"))
