"""Embedded sources: their text is written out once per machine, then read like any other file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from corpus.acquire import embedded
from corpus.acquire.disk import lock_path, read_note, write_note
from corpus.acquire.models import AcquireConfig, Listing, SourceFile, listing_of
from corpus.acquire.origins import EmbeddedOrigin
from corpus.base.files import atomic_write, fsync_dir
from corpus.base.locks import locked

PART = "part-00000.jsonl"


def list_embedded(origin: EmbeddedOrigin, config: AcquireConfig) -> Listing:
    """The one JSONL file of an embedded source, written on first use to `<cache>/embedded/<name>-<hash>/`."""
    folder = config.cache / "embedded"
    note = folder / f"{origin.name}.json"
    fingerprint = embedded.fingerprint(origin.name)
    known = _known(note, folder, origin, fingerprint)
    if known is None:
        with locked(lock_path(config.cache, f"embedded {origin.name}")):
            known = _known(note, folder, origin, fingerprint)
            if known is None:
                digest, size = _write(folder, origin.name)
                known = {"fingerprint": fingerprint, "sha256": digest, "size": size}
                write_note(note, known)
    path = _path(folder, origin.name, known["sha256"])
    return listing_of([SourceFile(PART, str(path), known["size"], f"sha256:{known['sha256']}")])


def _path(folder: Path, name: str, digest: str) -> Path:
    return folder / f"{name}-{digest[:12]}" / PART


def _known(note: Path, folder: Path, origin: EmbeddedOrigin, fingerprint: str) -> dict[str, Any] | None:
    """What is noted of the file, where it is here and still what would be written."""
    known = read_note(note)
    if isinstance(known, dict) and known.get("fingerprint") == fingerprint and _complete(folder, origin, known):
        return known
    return None


def _complete(folder: Path, origin: EmbeddedOrigin, known: dict[str, str]) -> bool:
    path = _path(folder, origin.name, known["sha256"])
    return path.is_file() and path.stat().st_size == known["size"]


def _write(folder: Path, name: str) -> tuple[str, int]:
    """Write the records under a name that holds their hash; returns the file's SHA-256 in hex and its size in bytes."""
    whole, size = hashlib.sha256(), 0
    beside = folder / f"{name}.jsonl"
    with atomic_write(beside) as out:
        for record in embedded.records(name):
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
            whole.update(line)
            size += out.write(line)
    path = _path(folder, name, whole.hexdigest())
    path.parent.mkdir(exist_ok=True)
    beside.replace(path)
    fsync_dir(path.parent)
    return whole.hexdigest(), size
