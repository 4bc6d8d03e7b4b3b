"""Writing files so that they are complete or absent, and hashing them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from corpus.base.errors import UserError


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or one's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def full_disk(folder: Path) -> UserError:
    """What to tell when ``folder`` has no room left."""
    return UserError(
        "no space left", where=str(folder), fix="Free some and run the same command again; finished units are kept."
    )


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder or missing rights into a UserError naming ``folder``."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise full_disk(folder) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"cannot write here: {error.strerror}", where=str(folder)) from None
        raise


def canonical_json(data: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8; what fingerprints are taken over."""
    return _utf8(json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def _utf8(json_text: str) -> bytes:
    """JSON as bytes. What is no UTF-8 in a file's name stands in it as \\udcff, an escape of JSON itself."""
    return json_text.encode("utf-8", "backslashreplace")


def fingerprint(data: Any) -> str:
    """SHA-256 (hex) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(data)).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fsync_dir(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename inside it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside ``path`` for writing; on success it is fsynced and renamed to ``path``."""
    # Threads, and on a shared folder processes of other machines, may write the same file at once.
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
        fsync_dir(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot be written: {reason}", where=str(path), fix="Check space and permissions.") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write pretty JSON (the data's own key order, one trailing newline) atomically."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as stream:
        stream.write(_utf8(text))


def write_json_rows(path: Path, data: dict[str, Any], key: str, rows: Iterable[Any]) -> None:
    """Write ``data`` as pretty JSON, atomically, with ``rows`` under ``key``: one row a line, and never all in memory.

    A stream has hundreds of thousands of rows: the pretty printer takes minutes for them, and gigabytes.
    """
    pretty = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    head = pretty.removesuffix("\n}") + "," if data else "{"
    with atomic_write(path) as stream:
        stream.write(_utf8(f"{head}\n  {json.dumps(key)}: ["))
        for number, row in enumerate(rows):
            stream.write(b",\n    " if number else b"\n    ")
            stream.write(_utf8(json.dumps(row, separators=(",", ":"), ensure_ascii=False, allow_nan=False)))
        stream.write(b"\n  ]\n}\n")


INDEX_FILE = "index.json"
"""In a folder of MDS shards: the name, size and hash of each."""


def shard_parts(folder: Path) -> list[dict[str, Any]]:
    """What a folder's index.json promises of each shard file (basename, bytes, hashes), as stored; [] without one.

    Raises UserError when the index cannot be read.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        return []
    return [shard["zip_data"] or shard["raw_data"] for shard in read_json(path)["shards"]]


def missing_shards(folder: Path) -> list[str]:
    """What a folder's index.json promises and the folder does not hold, one line per file; looks at sizes only."""
    problems = []
    for part in shard_parts(folder):
        try:
            size = (folder / part["basename"]).stat().st_size
        except FileNotFoundError:
            problems.append(f"{part['basename']}: missing")
            continue
        if size != part["bytes"]:
            problems.append(f"{part['basename']}: {size:,} bytes instead of {part['bytes']:,}")
    return problems


def publish_dir(beside: Path, final: Path) -> bool:
    """Fsync every file of ``beside`` and rename the folder to ``final``; False when ``final`` already exists.

    Raises UserError, and leaves nothing under the final name, when a file that its index.json promises is not there.
    """
    names = []
    for file in beside.rglob("*"):
        if file.is_file():
            names.append(file.relative_to(beside))
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    fsync_dir(beside)
    final.parent.mkdir(parents=True, exist_ok=True)
    _check_promised(beside)
    try:
        os.rename(beside, final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(beside, ignore_errors=True)
        return False
    try:
        # Who deletes a folder by its handle goes on after the rename; nobody who uses discard_dir does.
        _check_promised(final, names)
    except UserError:
        discard_dir(final)
        raise
    fsync_dir(final.parent)
    return True


def _check_promised(folder: Path, names: Iterable[Path] = ()) -> None:
    missing = missing_shards(folder) + [f"{name}: missing" for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"a file vanished while it was written ({missing[0]})", where=str(folder),
            fix="Something else deletes files here; run the same command again.",
        )  # fmt: skip


def discard_dir(folder: Path) -> bool:
    """Delete a folder that others may be writing in or publishing: first it loses its name, in one step.

    Whoever comes later finds it whole or not at all. False when there was none.
    """
    aside = folder.with_name(f".gone-{secrets.token_hex(6)}")
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises UserError naming the file."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"is not readable JSON: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise UserError("is not a JSON object", where=str(path))
    return data
