"""Locks between processes, as files that the kernel unlocks when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from corpus.base.files import disk_errors


class Lock:
    """An advisory lock shared by threads and processes; the kernel drops it when its holder dies."""

    def __init__(self, path: Path) -> None:
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def exclusive(self, *, wait: bool = True) -> bool:
        """Take it for this holder alone; without ``wait``, False when somebody else has it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Take it together with other sharers (from exclusive: let them in)."""
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let others have it; it can be taken again."""
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give it up for good. Unlocks explicitly: a forked child may hold a copy of the handle."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                self.release()
            os.close(self._handle)
            self._handle = -1


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at ``path`` alone."""
    lock = Lock(path)
    try:
        lock.exclusive()
        yield
    finally:
        lock.close()
