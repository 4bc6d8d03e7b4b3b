"""Writing files so that they are complete or absent, and hashing them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
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


def publish_dir(beside: Path, final: Path) -> bool:
    """Fsync every file of ``beside`` and rename the folder to ``final``; False when ``final`` already exists."""
    for file in beside.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    fsync_dir(beside)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(beside, final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(beside, ignore_errors=True)
        return False
    fsync_dir(final.parent)
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
