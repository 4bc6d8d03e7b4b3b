"""Files that are complete or absent, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError

CHUNK = 1 << 20
"""Bytes read, hashed and written at a time."""


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder or missing rights into a UserError naming ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                "the disk is full",
                where=str(folder),
                fix="Free some space and run the same command again, or choose another folder.",
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"cannot write here: {error.strerror}", where=str(folder)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as JSON beside ``path``, then rename: readers see the old file or the new one."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            with open(beside, "w", encoding="utf-8") as out:
                json.dump(data, out, sort_keys=True)  # as ASCII: a listing may hold names that UTF-8 cannot
                out.flush()
                os.fsync(out.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The JSON value at ``path``, or None when there is none or it cannot be read (a cache is made anew then)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def short_hash(text: str) -> str:
    """20 hex digits that name a cache entry for ``text``."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def lock_path(cache: Path, what: str) -> Path:
    """The lock file for ``what`` (a cache-relative path or a name of ours)."""
    return cache / "locks" / f"{short_hash(what)}.lock"


class Lock:
    """An advisory lock shared by threads and processes; the kernel drops it when its holder dies."""

    def __init__(self, path: Path) -> None:
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

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
        """Give it back. Unlocks explicitly: a forked child may hold a copy of the handle."""
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
