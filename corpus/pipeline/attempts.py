"""A build's scratch: a folder of its own under `.build`, folders of that name inside streams, and who may delete them.

Nobody touches what another attempt writes unless that attempt is known to be dead: its process on this machine is gone,
or nothing of it has changed for as long as a worker outlives its build. A worker may end later still than we think, so
folders are discarded in one step: it then fails to publish, and never publishes a part.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.base.files import discard_dir
from corpus.pipeline.cluster_options import ClusterOptions, saved_options
from corpus.pipeline.heartbeat import BEATS, leave
from corpus.pipeline.marks import alive

OWNER_FILE, BEAT_FILE = "owner.json", "beat"
LOST_AFTER = float(ClusterOptions.model_fields["lost_after"].default)
"""Seconds of silence after which an attempt that says nothing else of itself is taken for dead."""


@contextlib.contextmanager
def attempt(data: Path, name: str) -> Iterator[Path]:
    """A scratch folder for a build of the recipe ``name``, deleted when the build ends well.

    While it lives it gives signs of life there, for builds on other machines that see the data folder.
    """
    root = data / ".build"
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
    (folder / OWNER_FILE).write_text(json.dumps(_here() | {"pid": os.getpid(), "started": _started(os.getpid())}))
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(LOST_AFTER / BEATS):
            count += 1
            with contextlib.suppress(OSError):
                leave(folder / BEAT_FILE, str(count))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        stop.set()
        thread.join()
    discard_dir(folder)


def work_folder(stream: Path, scratch: Path) -> Path:
    """Where the workers of the build whose scratch folder is ``scratch`` write their parts of a stream."""
    return stream / "work" / scratch.name


def clear_dead_attempts(data: Path) -> None:
    """Delete what dead builds left under ``data``, and take their jobs off the cluster."""
    root = data / ".build"
    if not os.access(data, os.W_OK):
        return  # somebody else's folder, of which this build only reads
    dead: dict[str, bool] = {}
    for folder in _folders(root):
        runs = [run for run in _folders(folder) if run.name.startswith("run-")]
        if not runs and not (folder / OWNER_FILE).is_file():
            continue  # no attempt: what comparisons found, for one
        dead[folder.name] = _is_dead(folder, runs)
    for stream in _folders(data / "streams"):
        for work in _folders(stream / "work"):
            if dead[work.name] if work.name in dead else _is_silent(work):
                discard_dir(work)
        with contextlib.suppress(OSError):
            (stream / "work").rmdir()
    for name, is_dead in dead.items():
        if is_dead:
            discard_dir(root / name)


def _is_dead(folder: Path, runs: list[Path]) -> bool:
    clusters = {run: options for run in runs if (options := saved_options(run)) is not None}
    owner = _owner(folder)
    here = owner is not None and {**owner, **_here()} == owner
    if here and owner is not None:
        gone = not alive(owner["pid"]) or _started(owner["pid"]) != owner["started"]
        if not gone:
            return False
    else:
        gone = _is_silent(folder, max([LOST_AFTER, *(options.lost_after for options in clusters.values())]))
    if not gone:
        return False
    from corpus.pipeline import executors

    for run, options in clusters.items():
        executors.cancel(options, run)
    # Workers elsewhere end by themselves once they miss their build.
    return not clusters or not here or _is_silent(folder, max(options.lost_after for options in clusters.values()))


def _owner(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        owner: dict[str, Any] = json.loads((folder / OWNER_FILE).read_bytes())
        return owner
    return None


def _here() -> dict[str, str]:
    """This machine since it was started, and the container on it: where a process number means something."""
    return {
        "host": platform.node(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "processes": os.readlink("/proc/self/ns/pid"),
    }


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: its number may be another's by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_silent(folder: Path, lost_after: float = LOST_AFTER) -> bool:
    """Whether nothing in a folder or its folders changed for ``lost_after`` seconds, by its file system's clock."""
    with tempfile.NamedTemporaryFile(dir=folder.parent, prefix=".now-") as now:
        latest = max((_changed(path) for path in [folder, *folder.glob("*"), *folder.glob("*/*")]), default=0.0)
        return os.fstat(now.fileno()).st_mtime - latest > lost_after


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _folders(path: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
