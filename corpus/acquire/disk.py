"""What acquisition keeps on disk beside the files themselves: notes, partial downloads and the names of locks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from corpus.base.files import atomic_write, fsync_dir

CHUNK = 1 << 20
"""Bytes read, hashed and written at a time."""


def write_note(path: Path, data: Any) -> None:
    """Keep ``data`` as JSON at ``path``; readers see the old note or the new one."""
    with atomic_write(path) as stream:
        stream.write(json.dumps(data, sort_keys=True).encode())  # as ASCII: a listing may hold names that UTF-8 cannot


def read_note(path: Path) -> Any:
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


@dataclass(frozen=True)
class Partial:
    """Where the bytes of one download gather until all are there, and what the server said of the file."""

    path: Path

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def size(self) -> int:
        """Bytes that came so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """The strong ETag or date of change that the bytes here came under."""
        known = read_note(self._note)
        return known.get("validator") if isinstance(known, dict) else None

    def note(self, validator: str) -> None:
        """Keep the validator, so that a later run can continue the very file."""
        write_note(self._note, {"validator": validator})

    def append(self) -> IO[bytes]:
        """Open it to add bytes at its end."""
        return open(self.path, "ab")

    def free(self) -> int:
        """Bytes free on its disk."""
        return shutil.disk_usage(self.path.parent).free

    def discard(self) -> None:
        """Remove it and what is noted about it."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def publish(self, target: Path) -> None:
        """Give the whole file its final name, on the same file system."""
        with open(self.path, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(self.path, target)
        fsync_dir(target.parent)
        self._note.unlink(missing_ok=True)
