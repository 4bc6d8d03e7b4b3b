"""SHA-256 of local files, remembered until a file's size, time or inode changes: one note per folder of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from corpus.acquire.disk import CHUNK, read_note, short_hash, write_note
from corpus.base.errors import UserError
from corpus.base.files import sha256_file

HASHERS = 4
"""Files hashed at once: reading a large local corpus is the slowest part of listing it."""
SAVE_SECONDS = 10.0
"""Between two savings of what is hashed, so that little is read again after an interruption."""
SETTLED_NS = 2_000_000_000
"""A file younger than this could change again within its clock's resolution; it is not remembered."""


class Content(NamedTuple):
    """What is known of a file's content."""

    size: int
    sha256: str
    """In hex."""


def contents(paths: Sequence[Path], cache: Path) -> list[Content]:
    """Size and SHA-256 of each file; notes are kept under ``cache``. Raises UserError when one cannot be read."""
    by_folder: defaultdict[str, list[int]] = defaultdict(list)
    for place, path in enumerate(paths):
        by_folder[os.path.dirname(os.path.abspath(path))].append(place)
    found: dict[int, Content] = {}
    for folder, places in by_folder.items():
        folder_contents = _in_folder(folder, [paths[place] for place in places], cache)
        found.update(zip(places, folder_contents, strict=True))
    return [found[place] for place in range(len(paths))]


def _in_folder(folder: str, paths: Sequence[Path], cache: Path) -> list[Content]:
    note = cache / "hashes" / f"{short_hash(folder)}.json"
    known = read_note(note)
    known = known if isinstance(known, dict) else {}
    identities = [_identity(path) for path in paths]
    new = [
        place
        for place, (path, identity) in enumerate(zip(paths, identities, strict=True))
        if known.get(path.name, [None])[0] != identity
    ]
    saved = time.monotonic()
    with ThreadPoolExecutor(HASHERS) as pool:
        for place, sha256 in zip(new, pool.map(_sha256, [paths[place] for place in new]), strict=True):
            known[paths[place].name] = [identities[place], sha256]
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(note, known)
                saved = time.monotonic()
    if new:
        _save(note, known)
    return [Content(identity[0], known[path.name][1]) for path, identity in zip(paths, identities, strict=True)]


def _save(note: Path, known: dict[str, Any]) -> None:
    """``known``: file name -> [its identity, SHA-256]."""
    now = time.time_ns()
    settled = {name: entry for name, entry in known.items() if now - entry[0][1] > SETTLED_NS}
    with contextlib.suppress(UserError):  # where nothing can be written, files are hashed again the next time
        write_note(note, settled)


def _identity(path: Path) -> list[int]:
    with _readable(path):
        stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _sha256(path: Path) -> str:
    with _readable(path):
        return sha256_file(path)


def git_sha1(path: Path) -> str:
    """The hash (hex) that git gives a file's content; raises UserError when it cannot be read."""
    with _readable(path), open(path, "rb") as stream:
        whole = hashlib.sha1(b"blob %d\0" % os.fstat(stream.fileno()).st_size, usedforsecurity=False)
        while block := stream.read(CHUNK):
            whole.update(block)
    return whole.hexdigest()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
