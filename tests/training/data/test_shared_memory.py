"""Shared memory: enough of it before the first step, a reason when there is not, and names that lock nobody out."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus.base.errors import UserError
from tests.conftest import run_command
from tests.training.loader_ranks import SEQ_LEN, run_ranks, write_stream


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), 0, 100)


def _loader(stream: Path, workers: int) -> Any:
    from training.data.loader import MixtureSource, build_loader

    return build_loader(
        [MixtureSource("web", stream, None, 1.0)], seq_len=SEQ_LEN, seed=1, global_batch=4, canonical_nodes=1,
        total_steps=20, virtual_epoch_samples=64, num_workers=workers,
    )  # fmt: skip


def _with_free(stream: Path, free: int, workers: int) -> str:
    from training.data import shm

    real = os.statvfs
    os.statvfs = lambda path: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096) if path == shm.SHM else real(path)  # type: ignore
    try:
        next(iter(_loader(stream, workers)))
    except UserError as error:
        return error.one_line()
    finally:
        os.statvfs = real
    return "read"


def test_too_little_is_told_before_anything_is_made_on_every_rank(stream: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    for text in run_ranks(_with_free, 2, stream=stream, free=100_000, workers=2):
        assert "/dev/shm has 98.3 kB free, this run needs about" in text
        assert "--shm-size" in text and "or use --workers 0, which needs 32.8 kB" in text
    assert {name for name in set(os.listdir("/dev/shm")) - before if name.endswith("_owner")} == set()
    (text,) = run_ranks(_with_free, stream=stream, free=4096, workers=0)
    assert "has 4.1 kB free" in text and "--workers 0" not in text
    assert run_ranks(_with_free, stream=stream, free=40_000, workers=0) == ["read"]


def test_a_batch_takes_what_is_counted() -> None:
    from training.data.loader import batch_memory

    plain = batch_memory(8, 2048, document_mask=False, teacher_k=0)
    assert plain == 16 * 8 * 2048 + 4096 + 4096
    masked = batch_memory(8, 2048, document_mask=True, teacher_k=0)
    assert masked == plain + 4 * 8 * 2048 + 4096
    taught = batch_memory(8, 2048, document_mask=False, teacher_k=16)
    assert taught == plain + 4 * 16 * 8 * 2048 + 4096 + 2 * 17 * 8 * 2048 + 4096


def _reads_strictly(stream: Path) -> int:
    os.umask(0o077)
    return len(next(iter(_loader(stream, 0)))["sample_ids"])


def test_shards_unpacked_in_place_are_for_all_who_may_read_the_packed(tmp_path: Path) -> None:
    stream = write_stream(tmp_path / "stream", 0, 100)
    for path in stream.glob("*.zstd"):
        path.chmod(0o644)
    assert run_ranks(_reads_strictly, stream=stream) == [4]
    made = list(stream.glob("*.mds"))
    assert made and {path.stat().st_mode & 0o777 for path in made} == {0o644}


def _dies(stream: Path, number: int) -> str:
    loader = _loader(stream, 1)

    def die(samples: list[Any]) -> None:
        os.kill(os.getpid(), number)

    loader.collate_fn = die
    try:
        next(iter(loader))
    except UserError as error:
        return error.one_line()
    return "read"


def test_a_worker_that_dies_of_the_system_is_told_as_that(stream: Path) -> None:
    (text,) = run_ranks(_dies, stream=stream, number=signal.SIGBUS)
    assert "no more room in the shared memory /dev/shm" in text and "--shm-size" in text
    (text,) = run_ranks(_dies, stream=stream, number=signal.SIGKILL)
    assert "was killed" in text and "--workers" in text


TWO_USERS = """
import os, sys
from multiprocessing import resource_tracker
from streaming.base.world import World
from training.data import shm
resource_tracker.ensure_running()
codes = []
for uid in (54321, 54322):
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([]); os.setgid(uid); os.setuid(uid); os.umask(0o077)
            owned = shm.register(["/nowhere"], False, 0, 0, World.detect())
            owned.segment.cleanup()
            if uid == 54321: owned._leader = False  # it stays, as that of a run that goes on
            owned.release()
            print("registered", uid, flush=True)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
for uid in (54321, 54322):
    (shm.SHM / f"mixture_loader_start_{uid}").unlink(missing_ok=True)
    for path in shm.SHM.glob("*_owner"):
        if path.stat().st_uid == uid: path.unlink()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="becomes two other users")
def test_two_users_with_strict_umasks_share_a_machine() -> None:
    result = run_command("-c", TWO_USERS)
    assert result.stdout.split() == ["registered", "54321", "registered", "54322"], result.stderr
