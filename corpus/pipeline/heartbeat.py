"""How a build and its workers on other machines know of each other: each keeps a file on the shared folder changing.

A process id says nothing on another machine, and clocks of machines differ, so a side is taken for gone when what it
writes has not changed for `lost_after` seconds by the reader's own clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from pathlib import Path

SHARED_FILE = "shared.json"
"""In the folder of an attempt whose workers are on other machines: {"lost_after": seconds}."""
PARENT_FILE = "parent"
BEATS = 6
"""Beats of either side in `lost_after` seconds."""


class Silence:
    """Tells whether something written by another process has stopped changing."""

    def __init__(self, lost_after: float) -> None:
        """`lost_after` in seconds."""
        self.lost_after = lost_after
        self._seen: dict[str, tuple[object, float]] = {}

    def of(self, name: str, content: object) -> bool:
        """Whether `name` has had this very content for longer than `lost_after` seconds."""
        now = time.monotonic()
        before = self._seen.get(name)
        if before is None or before[0] != content:
            self._seen[name] = content, now
            return False
        return now - before[1] > self.lost_after


class ParentBeat:
    """The build's side: a file that changes while the build lives."""

    def __init__(self, folder: Path, lost_after: float) -> None:
        """`folder` of the attempt; workers that start there follow this build from now on."""
        self.path, self.every = folder / PARENT_FILE, lost_after / BEATS
        self._next = 0.0
        self._count = 0
        (folder / SHARED_FILE).write_text(json.dumps({"lost_after": lost_after}))
        self.beat()

    def beat(self) -> None:
        """Call it often; it writes when it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.every
            self._count += 1
            leave(self.path, str(self._count))


class WorkerBeat:
    """The worker's side: beats into its mark, and ends the process when the build is gone. Nothing on one machine."""

    def __init__(self, mark: Path) -> None:
        """`mark` is the worker's `running-<rank>` file in the attempt's folder."""
        self.mark = mark
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        with contextlib.suppress(FileNotFoundError):
            self.lost_after = float(json.loads((mark.parent / SHARED_FILE).read_bytes())["lost_after"])
            self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def shared(self) -> bool:
        """Whether the build may be on another machine."""
        return self._thread is not None

    def start(self) -> None:
        """Write the mark and keep beating."""
        if self._thread is not None:
            self._beat(0)
            self._thread.start()

    def stop(self) -> None:
        """No beat comes after this returns."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self, count: int) -> None:
        leave(self.mark, json.dumps({"host": platform.node(), "pid": os.getpid(), "beat": count}))

    def _run(self) -> None:
        count, parent = 0, Silence(self.lost_after)
        while not self._stop.wait(self.lost_after / BEATS):
            count += 1
            try:
                # A vanished folder is content too: one that does not change any more.
                content = (self.mark.parent / PARENT_FILE).read_text() if self.mark.parent.is_dir() else None
                if parent.of(PARENT_FILE, content):
                    os._exit(3)
                self._beat(count)
            except OSError:
                continue  # a shared folder may be away for a moment; if for long, the build takes this worker for lost


def leave(path: Path, text: str) -> None:
    """Leave text where another process reads it whole or not at all."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(text)
    os.replace(beside, path)
