"""Who owns streaming's shared memory: what a killed run leaves is removed, what a live run uses is never touched.

StreamingDataset numbers its shared-memory segments (/dev/shm/000003_locals ...) but does not say whether their makers
still live; a leftover makes the next run over the same cache folder fail, and the library's own cleaner removes the
segments of live runs too. Here every rank holds a shared flock on /dev/shm/<number>_owner for as long as it lives, and
its data workers inherit it. The kernel drops the lock however a process ends and whatever pid namespace it is in, so
an owner file that can be locked exclusively belongs to the dead. Segments without an owner file are not ours to judge.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from streaming.base.constant import SHM_TO_CLEAN
from streaming.base.shared.prefix import _check_and_find_retrying
from torch import distributed as dist

from corpus.errors import UserError

log = logging.getLogger(__name__)

SHM = Path("/dev/shm")  # noqa: S108 - the kernel's shared-memory filesystem, where segments live by definition
START_LOCK = "mixture_loader_start"
START_LOCK_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


def remove_stale() -> list[int]:
    """Remove the segments of every run whose processes are all dead; returns their numbers.

    The library's lock files in the temporary folder stay, as they do after a normal exit: they keep a number from being
    given out again while the dead run's resource tracker may still be unlinking its segments by name.
    """
    removed = []
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
            removed.append(int(match[1]))
        except (BlockingIOError, PermissionError):
            continue
        finally:
            os.close(fd)
    return removed


class Ownership:
    """This process's hold on a number; it lasts until the process and the workers it forked are gone."""

    def __init__(self, number: int, *, leader: bool) -> None:
        """Take the shared lock of `number`; the local leader makes the owner file, which other ranks must find."""
        self.number = number
        self.path = SHM / f"{number:06}_owner"
        self._leader = leader
        self._fd: int | None = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if leader else 0), 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        if leader:
            # After the library's own exit handlers; forked workers leave without running any.
            atexit.register(self.release)

    def release(self) -> None:
        """Let go; the leader also removes the owner file. Harmless when repeated."""
        if self._fd is not None:
            if self._leader:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None


@contextmanager
def claim(locals_: Sequence[str], remotes: Sequence[str | None], *, leader: bool) -> Iterator[Ownership]:
    """Settle the number that a StreamingDataset made inside the block will get, and own it before it exists.

    Call on all ranks together; `leader` is true on one rank of each machine, which holds a machine-wide lock meanwhile,
    so that runs starting at the same moment do not settle on the same number. Raises UserError when a live run uses
    one of the cache folders `locals_` (only folders with a remote are caches).
    """
    with _start_lock() if leader else nullcontext():
        if leader:
            removed = remove_stale()
            if removed:
                log.info("removed the shared memory of %d dead run(s)", len(removed))
        _barrier()
        try:
            number = max(
                _check_and_find_retrying(list(locals_), list(remotes), shm_name=name, retry=20) for name in SHM_TO_CLEAN
            )
        except ValueError:
            raise UserError(
                "a live run already uses one of these cache folders: " + ", ".join(locals_),
                fix="Give this run another cache folder, or stop the other one.",
            ) from None
        _barrier()
        if leader:
            ownership = Ownership(number, leader=True)
        _barrier()
        if not leader:
            ownership = Ownership(number, leader=False)
        try:
            yield ownership
        except BaseException:
            ownership.release()
            raise


def _barrier() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


@contextmanager
def _start_lock() -> Iterator[None]:
    path = SHM / START_LOCK
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + START_LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Two jobs that span the same two nodes could each hold one node's lock and wait for the other's.
                if time.monotonic() > deadline:
                    log.warning("another run has been starting for %.0f s; no longer waiting", START_LOCK_SECONDS)
                    break
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that forked it ends, even by SIGKILL.

    A data worker that waits for a dead sibling would else live on, and with it its run's shared memory.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
