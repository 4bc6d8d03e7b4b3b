"""Locks between processes, and between machines that share a folder.

The kernel's flock is used where it reaches all of them; it drops a lock when its holder dies. Some file systems have
none, and some mounts keep it on one machine: there a lock is a file of its own whose holder touches it now and then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from corpus.base.errors import UserError
from corpus.base.files import disk_errors

WAIT = 0.1
"""Seconds between two looks at a claim that somebody else holds."""
BEAT = 10.0
"""Seconds between two signs of life of a claim's holder."""
STALE = 60.0
"""Seconds without a sign after which a holder on another machine counts as gone."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What flock says where the file system has no such locks. That somebody else holds one is EWOULDBLOCK alone."""
LOCAL_MOUNTS = {"localflock", "nolock", "local_lock=flock", "local_lock=all"}
"""Options of Lustre and NFS under which flock succeeds without telling other machines."""

MOUNTS = Path("/proc/self/mountinfo")

_said: set[str] = set()


class Lock:
    """A lock shared by threads, processes and machines, named by a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._claim: Claim | None = None
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                # Whoever may write to the folder may lock in it, whatever the umask of the first user was.
                with contextlib.suppress(PermissionError):
                    os.fchmod(self._handle, (os.fstat(self._handle).st_mode | path.parent.stat().st_mode) & 0o666)
            except PermissionError:
                # Another user's lock file: it can be locked without the right to write.
                self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if stays_here(path.parent):
            self._use_claim("its mount options keep flock on one machine")

    def exclusive(self, *, wait: bool = True) -> bool:
        """Take it for this holder alone; without ``wait``, False when somebody else has it."""
        if self._claim is None and not self._flock(fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)):
            return False
        if self._claim is not None:
            while not self._claim.take():
                if not wait:
                    return False
                time.sleep(WAIT)
        return True

    def share(self) -> None:
        """Take it together with other sharers (from exclusive: let them in).

        Raises UserError where the file system has no such locks.
        """
        if self._claim is None:
            self._flock(fcntl.LOCK_SH)
        if self._claim is not None:
            raise UserError(
                "files in use cannot be told from others, since this file system has no locks",
                where=str(self._path.parent),
                fix="Leave out --cache-limit and --delete-downloads, use another folder, or mount Lustre with flock.",
            )

    def release(self) -> None:
        """Let others have it; it can be taken again."""
        if self._claim is not None:
            self._claim.release()
        else:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give it up for good. Unlocks explicitly: a forked child may hold a copy of the handle."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                self.release()
            os.close(self._handle)
            self._handle = -1

    def _flock(self, how: int) -> bool:
        """Whether it was taken (or a claim must be); False when somebody else holds it."""
        try:
            fcntl.flock(self._handle, how)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self._use_claim(f"flock: {error.strerror}")
        return True

    def _use_claim(self, why: str) -> None:
        self._claim = Claim(self._path.with_name(f"{self._path.name}.claim"))
        folder = str(self._path.parent)
        if folder not in _said:
            _said.add(folder)
            print(
                f"note: {folder} is on a file system that cannot keep two commands apart by itself ({why}); files with "
                "a sign of life are used instead, which take a minute to notice a machine that went away",
                file=sys.stderr,
                flush=True,
            )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at ``path`` alone."""
    lock = Lock(path)
    try:
        lock.exclusive()
        yield
    finally:
        lock.close()


class Claim:
    """A lock that needs no locks: a file that only one can create, touched by its holder as long as it lives.

    A holder on this machine that has ended is noticed at once, one elsewhere after STALE seconds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine: str | None = None
        self._stop = threading.Event()

    def take(self) -> bool:
        """Hold it from now on; False when somebody else does."""
        mine = json.dumps({**_identity(), "token": secrets.token_hex(8)})
        with disk_errors(self._path.parent):
            if not self._create(mine) and not (self._break() and self._create(mine)):
                return False
        self._mine, self._stop = mine, threading.Event()
        threading.Thread(target=self._beat, args=(os.getpid(), self._stop), daemon=True).start()
        return True

    def release(self) -> None:
        """Let others have it."""
        self._stop.set()
        # A forked child has the name, but not the claim.
        if self._mine is not None and json.loads(self._mine)["pid"] == os.getpid() and _read(self._path) == self._mine:
            self._path.unlink(missing_ok=True)
        self._mine = None

    def _create(self, mine: str) -> bool:
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as out:
            out.write(mine)
        return True

    def _break(self) -> bool:
        """Remove the claim of a holder that is gone; False when it is alive, or somebody was quicker."""
        there = _read(self._path)
        if there is None or not self._is_gone(there):
            return there is None
        aside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return True
        if _read(aside) != there:
            # Another one broke it and took it meanwhile.
            with contextlib.suppress(FileExistsError):
                os.link(aside, self._path)
            aside.unlink()
            return False
        aside.unlink()
        return True

    def _is_gone(self, holder: str) -> bool:
        try:
            known = json.loads(holder)
        except ValueError:
            known = {}  # it is being written, or its writer died in the middle
        here = _identity()
        if isinstance(known, dict) and all(known.get(part) == here[part] for part in ("host", "space")):
            return _started(int(known.get("pid", 0))) != known.get("started")
        try:
            return self._now() - self._path.stat().st_mtime > STALE
        except FileNotFoundError:
            return True

    def _now(self) -> float:
        """The file system's own time, which is not this machine's."""
        probe = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _beat(self, pid: int, stop: threading.Event) -> None:
        while not stop.wait(BEAT) and os.getpid() == pid:
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _identity() -> dict[str, str | int]:
    """What tells this process from all others; ``space``: process numbers mean something within it only."""
    try:
        space = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        space = ""
    return {"host": socket.gethostname(), "space": space, "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> str:
    """When a process of this machine started, in the kernel's words; '' when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


@functools.lru_cache(maxsize=64)
def stays_here(folder: Path) -> bool:
    """Whether the mount that holds ``folder`` keeps flock on this machine, so that others would not see it."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    place = os.path.realpath(folder)
    best, options = -1, ""
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, special = left.split(), right.split()
        if len(fields) < 6 or len(special) < 3:
            continue
        root = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]).rstrip("/")
        if len(root) >= best and (place == root or place.startswith(f"{root}/")):
            best, options = len(root), f"{fields[5]},{special[2]}"
    return bool(LOCAL_MOUNTS & set(options.split(",")))
