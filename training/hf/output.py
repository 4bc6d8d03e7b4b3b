"""A folder that a command writes: complete or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from corpus.base.errors import UserError


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill beside `out`; renamed to `out` when the block ends well, removed otherwise.

    Raises UserError when `out` exists and is not an empty folder, or when the disk refuses.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("already exists", where=str(out), fix="Choose another --to, or remove it.")
    beside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        yield beside
        for file in beside.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        os.replace(beside, out)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", where=str(out)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
