"""What lies in a data folder, and what no build needs any more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpus.base.errors import UserError
from corpus.base.locks import Lock
from corpus.records.manifest import MANIFEST_FILE, Manifest, load_manifest
from corpus.records.stream import STREAM_FILE, StreamRecord, load_stream

OTHER = {
    "downloads": "fetched files, needed for new streams only",
    "prepared": "joined files, needed for new streams only",
    "evaluations": "evaluation sets that cleaning compared with",
    "removed": "documents that cleaning removed (--keep-removed)",
    ".build": "work files and locks",
}
"""Folders of a data folder beside its builds, streams and tokenizers, and what they are for."""


@dataclass(frozen=True)
class StreamState:
    """One folder of `streams/`."""

    name: str
    bytes: int
    record: StreamRecord | None
    """None: not complete; a build of it goes on."""
    builds: tuple[str, ...]
    """The builds whose manifests name it."""


@dataclass(frozen=True)
class Inventory:
    """A data folder."""

    folder: Path
    builds: dict[str, Manifest]
    streams: list[StreamState]
    other: dict[str, int]
    """Bytes of the folders beside them."""
    tokenizers: dict[str, int]
    unused: list[Path] = field(default_factory=list)
    """Complete streams that no build names, then tokenizers that no other stream was made with."""


def take_inventory(data: Path) -> Inventory:
    """Look at a data folder; raises UserError when it is none, or holds a damaged manifest."""
    builds = {path.parent.name: load_manifest(path) for path in sorted(data.glob(f"*/{MANIFEST_FILE}"))}
    users: dict[str, list[str]] = {}
    for name, manifest in builds.items():
        for source in manifest.sources.values():
            users.setdefault(Path(source.stream).name, []).append(name)
    streams = []
    for folder in _folders(data / "streams"):
        record = load_stream(folder) if (folder / STREAM_FILE).is_file() else None
        streams.append(StreamState(folder.name, size_of(folder), record, tuple(users.get(folder.name, ()))))
    if not builds and not streams:
        raise UserError(
            "holds neither a manifest nor a stream",
            where=str(data),
            fix="Build it first (python -m corpus.build RECIPE), or point to data/<recipe> or data/streams/<stream>.",
        )
    made_with = {Path(s.record.tokenizer.path).name for s in streams if s.record and s.builds}
    made_with |= {Path(manifest.tokenizer.path).name for manifest in builds.values()}
    pending = any(stream.record is None for stream in streams)
    # Beside them lie notes of what they were trained on.
    made = [folder for folder in _folders(data / "tokenizers") if (folder / "tokenizer.json").is_file()]
    tokenizers = {folder.name: size_of(folder) for folder in made}
    unused = [data / "streams" / stream.name for stream in streams if stream.record and not stream.builds]
    # A stream that is not complete does not say yet which tokenizer it is made with.
    unused += [data / "tokenizers" / name for name in tokenizers if name not in made_with and not pending]
    other = {name: size_of(data / name) for name in OTHER if (data / name).is_dir()}
    return Inventory(data, builds, streams, other, tokenizers, unused)


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def size_of(folder: Path) -> int:
    """Bytes on disk of all files below a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # a build at work took it away
    return total


def prune(inventory: Inventory) -> list[Path]:
    """Delete what is unused, but for streams that a build is at work on; returns what went."""
    gone, busy = [], False
    for path in inventory.unused:
        if busy and path.parent.name == "tokenizers":
            continue  # the build at work may be about to use it
        lock = Lock(inventory.folder / ".build" / f"{path.name}.lock")
        try:
            if path.parent.name == "streams" and not lock.exclusive(wait=False):
                busy = True
                continue
            # The record goes first: what is left of a stopped deletion counts as no stream.
            (path / STREAM_FILE).unlink(missing_ok=True)
            shutil.rmtree(path)
            gone.append(path)
        finally:
            lock.close()
    return gone
