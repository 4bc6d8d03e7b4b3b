"""Shared memory of the dead is cleared away, that of the living is left alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.base.errors import UserError
from tests.training.loader_ranks import SEQ_LEN, free_port, rank_environment, start_rank, write_stream
from tests.waiting import PATIENCE, wait_until

SHM = Path("/dev/shm")


def _read(pipe: Any, environment: dict[str, str], stream: Path, cache: Path, workers: int) -> None:
    """Send (shared-memory number, sample ids) of batch after batch; the pipe's size holds it back."""
    import torch

    from training.data.loader import MixtureSource, build_loader

    os.setsid()
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        made = build_loader(
            [MixtureSource("web", cache, str(stream), 1.0)],
            seq_len=SEQ_LEN,
            seed=1,
            global_batch=4,
            canonical_nodes=1,
            total_steps=100_000,
            virtual_epoch_samples=64,
            num_workers=workers,
            cache_limit=1 << 30,
        )
        for batch in made:
            pipe.send((made.dataset._shm_prefix_int, batch["sample_ids"].tolist()))
            time.sleep(0.01)
    except UserError as error:
        pipe.send(error)


class Run:
    """`world` ranks, each with its workers in a session of its own, reading one stream through a cache folder."""

    def __init__(self, stream: Path, cache: Path, world: int = 1, workers: int = 1) -> None:
        port = free_port()
        arguments = {"stream": stream, "cache": cache, "workers": workers}
        self.ranks = [start_rank(_read, rank_environment(rank, world, 1, port), arguments) for rank in range(world)]

    def batch(self, rank: int = 0) -> Any:
        """(shared-memory number, sample ids) of the next batch, or the user error."""
        return self.ranks[rank][1].recv()

    def kill(self) -> None:
        """SIGKILL everything at once; the resource tracker, shared with the test, tidies nothing up."""
        for process, _ in self.ranks:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.join(PATIENCE)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), 0, 300)


@pytest.fixture
def start() -> Iterator[Any]:
    runs: list[Run] = []

    def begin(*args: Any, **kwargs: Any) -> Run:
        runs.append(Run(*args, **kwargs))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


def segments(number: int) -> set[str]:
    return {path.name for path in SHM.glob(f"{number:06}_*")}


def test_killed_runs_do_not_block_and_live_runs_are_left_alone(stream: Path, tmp_path: Path, start: Any) -> None:
    alive = start(stream, tmp_path / "alive")
    dead = start(stream, tmp_path / "cache", world=2)
    live_number, _ = alive.batch()
    number, first = dead.batch()
    dead.batch(rank=1)
    dead.kill()
    assert f"{number:06}_locals" in segments(number), "the kill was meant to leave segments behind"
    live_segments = segments(live_number)

    again = start(stream, tmp_path / "cache", world=2)
    new_number, ids = again.batch()
    assert ids == first
    assert not segments(number), "segments of the killed run are still there"
    assert new_number not in (number, live_number)
    assert segments(live_number) >= live_segments - {f"{live_number:06}_epoch_shape", f"{live_number:06}_epoch_data"}
    for _ in range(100):  # across several virtual epochs, each of which makes new segments
        assert len(alive.batch()[1]) == 4

    # A cache folder in use by a live run is refused in one line, on every rank.
    refused = start(stream, tmp_path / "alive", world=2)
    for rank in (0, 1):
        error = refused.batch(rank)
        assert isinstance(error, UserError) and "a live run already uses the cache folder" in error.one_line()
    alive.batch()


def test_runs_that_start_at_once_settle_on_different_numbers(stream: Path, tmp_path: Path, start: Any) -> None:
    runs = [start(stream, tmp_path / str(n), workers=0) for n in range(3)]
    assert len({run.batch()[0] for run in runs}) == 3


def test_a_rank_waits_for_the_segment_that_another_is_making() -> None:
    from streaming.base.shared import SharedArray

    from training.data.streaming_adapter import patched

    path = SHM / f"test_{os.getpid()}_halfway"
    path.touch()  # what a second rank finds between the two calls that make a segment
    maker = threading.Timer(0.5, os.truncate, (path, 4096))
    maker.start()
    try:
        with patched(0, segment=None):  # type: ignore[arg-type]  # what the library's constructor runs in
            array = SharedArray(4096, np.uint8, path.name)
        assert len(array.numpy()) == 4096 and not array.shm.created_shms
        array.shm.cleanup()
        assert path.exists()
    finally:
        path.unlink()


def test_workers_end_with_their_killed_parent(stream: Path, tmp_path: Path, start: Any) -> None:
    run = start(stream, tmp_path / "cache", workers=2)
    number, _ = run.batch()
    parent = run.ranks[0][0].pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert len(children) >= 2
    os.kill(parent, signal.SIGKILL)  # only the parent: its group lives on
    run.ranks[0][0].join(PATIENCE)

    def ended(pid: str) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    assert wait_until(lambda: all(map(ended, children)), pause=0.05)
    from training.data.shm import remove_stale

    def removed() -> bool:
        remove_stale()
        return not segments(number)

    assert wait_until(removed, pause=0.2)  # whoever else held on may be ending still


def test_segments_without_an_owner_file_are_left_alone() -> None:
    from training.data.shm import remove_stale

    foreign = SHM / "987654321012_locals"
    foreign.write_bytes(b"x")
    try:
        remove_stale()
        assert foreign.exists()
        (SHM / "987654321012_owner").touch()
        remove_stale()
        assert not segments(987654321012)
    finally:
        for name in ("locals", "owner"):
            (SHM / f"987654321012_{name}").unlink(missing_ok=True)
