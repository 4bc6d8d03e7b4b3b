"""Checkpoints on disk: complete or absent, verified when read, and readable without running any code they carry.

    RUN/checkpoints/phase00-step000001000/
        model.safetensors   the weights, under MobileLM's own names
        state.pt            optimiser, clock and random states: tensors, numbers and strings only
        checkpoint.json     what it belongs to, and the size and hash of the other two

The folder is written beside, fsynced and renamed, so its name means that it is whole. Full (unsharded) states are kept
for every kind of parallelism: the family ends at 1.5 B parameters, and a checkpoint then suits any number of devices.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from corpus.base.config import Strict, parse
from corpus.base.errors import UserError
from corpus.base.files import fingerprint, fsync_dir, is_full, publish_dir, read_json, write_json
from training.model.saved import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "state.pt"
RECORD_FILE = "checkpoint.json"
_NAME = re.compile(r"phase(\d{2})-step(\d{9})")


class FileRecord(Strict):
    """One file of a checkpoint."""

    bytes: int
    xxh3: str
    """Hexadecimal XXH3-128 of the content."""


class Record(Strict):
    """`checkpoint.json`."""

    format: int = 1
    phase: int
    """0-based phase of the run."""
    recipe: str
    step: int
    """Optimiser steps done in the phase."""
    tokens: int
    """Target tokens trained on in the phase."""
    finished: bool
    """The phase is at its last step."""
    model: dict[str, Any]
    """ModelConfig of the weights."""
    document_mask: bool | None = None
    """Attention stays inside documents; None in checkpoints written before this was recorded."""
    model_changes: list[dict[str, Any]] = []
    """Changes of what the model computes that the user let pass: the step, and {field: [before, after]}."""
    data: dict[str, Any]
    """The loader's position: its step, the fields that fix the samples of every step (manifest, mixture, seed, sequence
    length, global batch ...), and the changes of those that the user let pass."""
    next_batch: str | None = None
    """Digest of the sample numbers of the next step's global batch; None at the phase's end."""
    world_size: int
    microbatch: int
    """Sequences per forward pass that were in use on each device."""
    found_for: dict[str, Any] | None = None
    """Devices and settings that number was searched for (`training.run.passes`); None when it was not searched."""
    files: dict[str, FileRecord]

    @property
    def name(self) -> str:
        """Name of the checkpoint's folder."""
        return f"phase{self.phase:02d}-step{self.step:09d}"


class _HashedFile(io.RawIOBase):
    """A write-only file that hashes what passes through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        import xxhash

        super().__init__()
        self._stream, self._hash, self._bytes = stream, xxhash.xxh3_128(), 0
        self.error: OSError | None = None
        """Why the disk refused; torch hides it behind an exception of its own."""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._bytes += len(view)
        try:
            return self._stream.write(view)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._stream.flush()

    def record(self) -> FileRecord:
        return FileRecord(bytes=self._bytes, xxh3=self._hash.hexdigest())


def _hash(path: Path) -> FileRecord:
    import xxhash

    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb") as stream:
        while block := stream.read(8 << 20):
            digest.update(block)
            size += len(block)
    return FileRecord(bytes=size, xxh3=digest.hexdigest())


def write(folder: Path, facts: Mapping[str, Any], weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint into `folder` and return its path; called by one process, tensors on the CPU.

    `facts` are Record's fields but `files`. Raises UserError when the disk refuses, leaving earlier checkpoints alone.
    """
    import torch

    beside = folder / f".writing.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    hashed: dict[str, _HashedFile] = {}
    refusal: OSError | UserError
    try:
        beside.mkdir(parents=True)
        with _hashed(beside / WEIGHTS_FILE, hashed) as stream:
            write_tensors(weights, stream)
        with _hashed(beside / STATE_FILE, hashed) as stream:
            torch.save(dict(state), stream)
        record = Record(**facts, files={name: file.record() for name, file in hashed.items()})
        content = record.model_dump(mode="json")
        write_json(beside / RECORD_FILE, {**content, "fingerprint": fingerprint(content)})
        final = folder / record.name
        shutil.rmtree(final, ignore_errors=True)
        publish_dir(beside, final)
        return final
    except (OSError, UserError) as error:
        refusal = error
    except RuntimeError:
        errors = [file.error for file in hashed.values() if file.error]
        if not errors:
            raise
        refusal = errors[0]
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    # A file's own error has been put into words already.
    why = refusal.what if isinstance(refusal, UserError) else refusal.strerror or str(refusal)
    first = "Free some space" if is_full(refusal) or os.strerror(errno.ENOSPC) in why else "See to that"
    raise UserError(
        f"the checkpoint cannot be written: {why}",
        where=str(folder),
        fix=f"{first} and run the same command again; earlier checkpoints are untouched.",
    )


@contextlib.contextmanager
def _hashed(path: Path, kept: dict[str, _HashedFile]) -> Iterator[IO[bytes]]:
    with path.open("wb") as stream:
        kept[path.name] = _HashedFile(stream)
        yield cast(IO[bytes], kept[path.name])


def listing(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def read_record(path: Path) -> Record:
    """The record of a checkpoint; raises UserError when it is damaged."""
    data = read_json(path / RECORD_FILE)
    stored = data.pop("fingerprint", None)
    if stored != fingerprint(data):
        raise UserError("its content does not match its fingerprint", where=str(path / RECORD_FILE))
    return parse(Record, data, str(path / RECORD_FILE))


def verify(path: Path) -> Record:
    """Read a checkpoint's record and hash its files; raises UserError naming the first that is damaged."""
    record = read_record(path)
    for name, expected in record.files.items():
        file = path / name
        if not file.is_file():
            raise UserError("is missing", where=str(file))
        if file.stat().st_size != expected.bytes or _hash(file) != expected:
            raise UserError("does not match its recorded size and hash", where=str(file))
    return record


def newest_good(folder: Path, warn: Callable[[str], None]) -> tuple[Path, Record] | None:
    """The newest checkpoint that verifies, or None when there is none at all.

    A damaged one is passed over with a warning and renamed to `damaged-...`, so that it neither counts as kept nor
    blocks its step from being saved again. Raises UserError when every checkpoint is damaged.
    """
    paths = listing(folder)
    for path in paths:
        try:
            return path, verify(path)
        except UserError as error:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            warn(f"passing over a damaged checkpoint, now {aside.name}: {error.one_line()}")
    if paths:
        raise UserError("no checkpoint is intact", where=str(folder), fix="Start anew with another --run-name.")
    return None


def prune(folder: Path, keep: int, every: int | None = None) -> None:
    """Delete all checkpoints but the `keep` newest, the last of each phase and, with `every`, those of its multiples.

    What killed writers left behind goes too.
    """
    newest: dict[int, Path] = {}
    for path in listing(folder):
        newest.setdefault(_place(path)[0], path)
    kept = {*listing(folder)[:keep], *newest.values()}
    if every:
        kept |= {path for path in listing(folder) if _place(path)[1] % every == 0}
    for path in [*(path for path in listing(folder) if path not in kept), *folder.glob(".writing.*")]:
        shutil.rmtree(path, ignore_errors=True)
    fsync_dir(folder)


def _place(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match, "listing returns such names alone"
    return int(match[1]), int(match[2])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, or of a .safetensors file, on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path if path.is_file() else path / WEIGHTS_FILE
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"holds no weights: {error}", where=str(file)) from None


def read_state(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Optimiser, clock and random states of a checkpoint; refuses to build any object but tensors and plain values."""
    import pickle

    import torch

    try:
        state = torch.load(path / STATE_FILE, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"cannot be read: {str(error).splitlines()[0]}", where=str(path / STATE_FILE)) from None
    assert isinstance(state, dict)
    return state
