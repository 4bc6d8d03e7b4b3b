"""What a worker leaves for the process that watches it, and how it ends when that process is gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from corpus.base.process import end_with_parent
from corpus.pipeline.heartbeat import WorkerBeat, leave

OWNER = "CORPUS_BUILD_OWNER"
"""Environment variable with the process id whose death ends the workers."""


class UnitMarks:
    """Marks that tell the parent which unit this worker is on; also ends the worker when the parent is gone."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self._mark = folder / f"running-{rank}"
        self._beat = WorkerBeat(self._mark)

    def __enter__(self) -> UnitMarks:
        if self._beat.shared:
            self._beat.start()
        else:
            _follow_owner()
            self._mark.write_text(str(os.getpid()))
        return self

    def done(self, counts: list[Any]) -> None:
        """The unit is published."""
        leave(self.folder / f"done-{self.rank}", json.dumps(counts))

    def __exit__(self, *exc: object) -> None:
        self._beat.stop()
        self._mark.unlink(missing_ok=True)


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, however it dies; end it now if that has happened."""
    with contextlib.suppress(OSError, AttributeError):
        end_with_parent(signal.SIGKILL, parent)
    if os.getppid() != parent:
        os._exit(3)


_following = False


def _follow_owner() -> None:
    """Start, once per process, a thread that ends this worker when the build that owns it is gone."""
    global _following
    owner = int(os.environ.get(OWNER, "0"))
    if _following or not owner:
        return
    _following = True

    def follow() -> None:
        while alive(owner):
            time.sleep(1)
        os._exit(3)

    threading.Thread(target=follow, daemon=True).start()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")
