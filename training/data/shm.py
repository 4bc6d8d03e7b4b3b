"""Who owns streaming's shared memory: what a killed run leaves is removed, what a live run uses is never touched.

StreamingDataset numbers its shared-memory segments (/dev/shm/000003_locals ...) but does not say whether their makers
still live: leftovers pile up or make the next run fail, its own cleaner removes the segments of live runs too, and two
live runs may share a cache folder unnoticed. Here every rank holds a shared flock on /dev/shm/<number>_owner for as
long as it lives, and its data workers inherit it. The kernel drops the lock however a process ends and whatever pid
namespace it is in, so an owner file that can be locked exclusively belongs to the dead. Segments without an owner file
are not ours to judge.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypeVar

import torch
from streaming.base.constant import LOCALS, SHM_TO_CLEAN
from streaming.base.distributed import barrier
from streaming.base.shared import SharedMemory
from streaming.base.world import World
from torch import distributed as dist

from corpus.base.errors import UserError
from corpus.base.numbers import file_size
from training.data.streaming_adapter import pack_folders, segment_name, unpack_folders

log = logging.getLogger(__name__)

SHM = Path("/dev/shm")  # noqa: S108 - the kernel's shared-memory filesystem, where segments live by definition
START_LOCK = "mixture_loader_start_{user}"
"""One per user: made under one's umask, it could lock the others out."""
PAGE = 4096
ANSWER_BYTES = 16384
"""Room for one rank's answer: an error with a path in it fits (a path has at most 4096 bytes)."""
_kept: list[torch.Tensor] = []
T = TypeVar("T")


def remove_stale() -> list[int]:
    """Remove the segments of every run whose processes are all dead; returns the numbers of the living.

    The library's lock files in the temporary folder stay, as they do after a normal exit: they keep a number from being
    given out again while the dead run's resource tracker may still be unlinking its segments by name.
    """
    living = []
    for path in sorted(SHM.glob("*_owner")):
        match = re.fullmatch(r"(\d{6,})_owner", path.name)
        if match is None:
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in SHM_TO_CLEAN:
                (SHM / f"{match[1]}_{name}").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            log.info("removed the shared memory of a dead run (%s)", match[1])
        except BlockingIOError:
            living.append(int(match[1]))
        except PermissionError:
            continue
        finally:
            os.close(fd)
    return living


class Ownership:
    """A run's number on this machine, held until this process and the workers it forked are gone."""

    def __init__(self, number: int, segment: SharedMemory, *, leader: bool) -> None:
        """`segment` is the library's record of the run's folders; the local leader has made it, other ranks joined."""
        self.number = number
        self.segment = segment
        self._path = _owner_file(number)
        self._leader = leader
        self._fd: int | None = _hold(self._path)
        if leader:
            # Forked workers leave without running exit handlers, so only the leader removes its file.
            atexit.register(self.release)

    def release(self) -> None:
        """Let go; the leader also removes the owner file. Harmless when repeated."""
        if self._fd is not None:
            if self._leader:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None


def pages(*sizes: int) -> int:
    """Bytes that files of these sizes take of the shared memory, which is given out in pages."""
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def register(folders: Sequence[str], alone: bool, segments: int, batches: int, world: World) -> Ownership:
    """Settle and own the number of this node's shared memory, before any of it exists; call on all ranks together.

    Stands in for the library's own search, in which runs that start at once (or two nodes of one run on the same
    machine) settle on the same number. With `alone`, every rank raises UserError when a live run uses one of the
    `folders`, as this one would delete shards that it reads; and they raise it when the shared memory has no room for
    `segments` bytes of the node and `batches` bytes that its data workers have under way.
    """
    answer: dict[str, Any] = {"node": world.node}
    ownership: Ownership | None = None
    if world.is_local_leader:
        with _start_lock():
            try:
                ownership = _lead(list(folders), alone, segments, batches)
                answer["number"] = ownership.number
            except UserError as error:
                answer["error"] = [error.what, error.fix]
    for other in gather(answer):
        if "error" in other:
            raise UserError(other["error"][0], fix=other["error"][1])
        if other["node"] == world.node and "number" in other and ownership is None:
            segment = SharedMemory(segment_name(other["number"], LOCALS), False)
            ownership = Ownership(other["number"], segment, leader=False)
    # The leader may end at any time from here on, but not before everyone has joined.
    barrier()
    assert ownership is not None, "every node has a local leader"
    return ownership


def _check_room(segments: int, batches: int) -> None:
    """Memory that is not there ends a process by a bus error, without a word."""
    state = os.statvfs(SHM)
    free = state.f_bavail * state.f_frsize
    if free < segments + batches:
        less = f", or use --workers 0, which needs {file_size(segments)}" if segments <= free else ""
        raise UserError(
            f"the shared memory {SHM} has {file_size(free)} free, this run needs about {file_size(segments + batches)}",
            fix=f"Give the container more (docker run --shm-size){less}.",
        )


def _lead(folders: list[str], alone: bool, segments: int, batches: int) -> Ownership:
    for number in remove_stale():
        # The library has a check of its own, but it passes over every run whose lock files exist: all of them.
        shared = set(folders).intersection(_folders_of(number)) if alone else set()
        if shared:
            raise UserError(
                f"a live run already uses the cache folder {sorted(shared)[0]}",
                fix="Give this run other cache folders, or stop the other run.",
            )
    _check_room(segments, batches)
    number = _unused() - 1
    while True:
        number += 1
        # The file comes first: whatever a kill leaves behind from here on has an owner file.
        try:
            held = _hold(_owner_file(number), os.O_CREAT | os.O_EXCL)
        except FileExistsError:  # another user's run was faster
            continue
        if not os.fstat(held).st_nlink:  # another user took it for a dead run's before it was locked
            os.close(held)
            continue
        data = pack_folders(folders, number)
        try:
            segment = SharedMemory(segment_name(number, LOCALS), True, len(data))
        except FileExistsError:  # a program that does not wait for the start lock was faster
            _owner_file(number).unlink()
            os.close(held)
            continue
        segment.buf[: len(data)] = data
        ownership = Ownership(number, segment, leader=True)
        os.close(held)
        return ownership


def _folders_of(number: int) -> list[str]:
    try:
        return unpack_folders((SHM / segment_name(number, LOCALS)).read_bytes())[0]
    except (FileNotFoundError, PermissionError):
        return []


def _unused() -> int:
    names = [path.name for folder in (SHM, Path(gettempdir())) for path in folder.glob("[0-9]*_*")]
    return 1 + max((int(name.split("_")[0]) for name in names if re.match(r"\d{6,9}_", name)), default=-1)


def _owner_file(number: int) -> Path:
    return SHM / f"{number:06}_owner"


def _hold(path: Path, flags: int = 0) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, 0o644)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def gather(answer: T) -> list[T]:
    """Every rank's answer (small, as JSON), in rank order.

    Not all_gather_object, whose tensors a thread of gloo may be the last to hold: it then waits for the GIL to free
    them, while destroy_process_group holds the GIL and waits for that thread. These tensors are never freed.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [answer]
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    text = json.dumps(answer).encode()
    if len(text) > ANSWER_BYTES:
        raise ValueError(f"an answer of {len(text)} bytes")
    mine = torch.tensor(list(text.ljust(ANSWER_BYTES)), dtype=torch.uint8, device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    _kept.extend([mine, *everyone])
    dist.all_gather(everyone, mine)
    return [json.loads(bytes(each.tolist())) for each in everyone]


@contextmanager
def _start_lock() -> Iterator[None]:
    """One run at a time of this user settles its number."""
    path = SHM / START_LOCK.format(user=os.getuid())
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
