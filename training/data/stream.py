"""One stream of the mixture as streaming reads it: a lean index, safe unpacking, errors that name stream and shard.

Shards are read unpacked from the stream's `local` folder. With a `remote` that is a cache, which several runs may fill
at once: each file appears there whole, under its name, or not at all. A remote on this machine is read in place, and
nothing is ever written to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash
import zstandard
from numpy.typing import NDArray
from streaming.base.compression import decompress
from streaming.base.format import FileInfo, Reader
from streaming.base.format.mds.reader import MDSReader
from streaming.base.util import wait_for_file_to_exist
from streaming.base.world import World

from corpus.base.collector import collector_off
from corpus.base.errors import UserError
from training.data.streaming_adapter import AdaptedStream

INDEX = "index.json"
ENCODINGS = ("ndarray:uint16", "ndarray:uint32")
PIECE = 1 << 18
"""Packed bytes read, and unpacked bytes made, at a time."""
PART = ".part"
"""Ends the names of files in the making."""
LEFTOVER_SECONDS = 86_400.0


class PackedReader(MDSReader):
    """A shard whose samples are one array of fixed size, read without parsing its encoding again for each."""

    def get_item(self, idx: int) -> dict[str, Any]:
        """{"ids": unsigned integers of shape (seq_len + 1,)}; FileNotFoundError when the shard is not unpacked."""
        dtype = np.dtype(self.column_encodings[0].split(":")[1])
        size = self.column_sizes[0]
        assert size is not None, "the encoding fixes the size"
        fd = os.open(f"{self.dirname}/{self.raw_data.basename}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # An MDS shard: the number of samples, the offset of each, a header, the samples.
            begin = int.from_bytes(os.pread(fd, 4, 4 * (1 + idx)), "little")
            data = os.pread(fd, size, begin)
        finally:
            os.close(fd)
        if not begin or len(data) != size:
            raise ValueError(f"its unpacked copy {self.raw_data.basename} ends early; delete that file")
        return {"ids": np.frombuffer(data, dtype)}


class MixtureStream(AdaptedStream):
    """A packed stream: MDS shards with one `ids` column of seq_len + 1 unsigned integers."""

    def __init__(self, name: str, local: Path, remote: str | None, seq_len: int) -> None:
        """`local` and `remote` as in :class:`training.data.dataset.MixtureSource`."""
        # Absolute: ranks and workers must agree on the folder's name whatever their working directory.
        super().__init__(local=str(Path(local).absolute()), remote=remote)
        self.name = name
        self.seq_len = seq_len
        self.lost: list[str] = []
        """Shards that are nowhere on this machine, as far as the stream itself is on it; the local leader knows."""
        self.origin = None if remote and "://" in remote else Path(remote or self.local).absolute()
        self._index = Path(self.origin or self.local, INDEX)

    def get_index_size(self) -> int:
        """Bytes that the index takes of the cache: one on this machine is read in place."""
        return 0 if self.origin else self._index.stat().st_size

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """Read the index, fetching it first where it is missing; UserError when it is absent, damaged or ill-fitting.

        The library deep-copies every entry, which for 1e5 shards takes seconds and most of a gigabyte per rank.
        """
        path = self._index
        try:
            if self.origin is None and not path.exists():
                if world.is_local_leader:
                    Path(self.local).mkdir(parents=True, exist_ok=True)
                    os.replace(self.fetch(INDEX, f"{INDEX}.{secrets.token_hex(4)}{PART}"), path)
                else:
                    wait_for_file_to_exist(str(path), 0.05, self.download_timeout, f"{path} did not arrive in time: ")
            with collector_off():
                return self._readers(orjson.loads(path.read_bytes())["shards"])
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(
                f"stream '{self.name}' is not there",
                where=str(path),
                fix="Build it: python -m corpus.build RECIPE --out DATA.",
            ) from None
        except Exception as error:
            if isinstance(error, OSError) and is_of_place(error):
                raise self._place_error(error, str(path)) from error
            raise UserError(
                f"the index of stream '{self.name}' cannot be read ({error})",
                where=self.remote or str(path),
                fix="Check it: python -m corpus.inspect STREAM --verify.",
            ) from error

    def _readers(self, entries: list[dict[str, Any]]) -> list[Reader]:
        readers: list[Reader] = []
        fitting = [[f"{encoding}:{self.seq_len + 1}"] for encoding in ENCODINGS]
        shared: list[list[Any]] = [[], [], [], []]
        for entry in entries:
            if entry["column_names"] != ["ids"] or entry["column_encodings"] not in fitting:
                raise UserError(
                    f"stream '{self.name}' holds {entry['column_names']} as {entry['column_encodings']}, not samples "
                    f"of {self.seq_len} + 1 ids",
                    where=self.local,
                    fix="Build the recipe at this sequence length.",
                )
            described = [entry[key] for key in ("column_encodings", "column_names", "column_sizes", "hashes")]
            if described != shared:  # shards mostly describe themselves alike; one list then does for all
                shared = described
            encodings, names, sizes, hashes = shared
            zipped = entry["zip_data"]
            readers.append(
                PackedReader(
                    dirname=self.local,
                    split="",
                    column_encodings=encodings,
                    column_names=names,
                    column_sizes=sizes,
                    compression=entry["compression"],
                    hashes=hashes,
                    raw_data=FileInfo(**entry["raw_data"]),
                    samples=entry["samples"],
                    size_limit=entry["size_limit"],
                    zip_data=FileInfo(**zipped) if zipped else None,
                )
            )
        return readers

    def set_up_local(self, shards: list[Reader], cache_usage_per_shard: NDArray[np.int64]) -> None:
        """Note the bytes that each shard has here, mending what a crash left half done.

        The library's way joins paths and tells files from links for every shard: over a second for 1e5 of them.
        """
        here = self.local.rstrip("/")
        try:
            os.makedirs(here, exist_ok=True)
            listing = set(_files(here))
            if self.remote:
                _remove_leftovers(listing)
        except OSError as error:
            raise self._place_error(error, here) from error
        there = str(self.origin)
        stored = listing if self.origin is None or there == here else set(_files(there))
        for index, shard in enumerate(shards):
            ((raw, zipped),) = shard.file_pairs
            if self.origin and not any(f"{there}/{part.basename}" in stored for part in (raw, zipped) if part):
                self.lost.append((zipped or raw).basename)
            has_raw = f"{here}/{raw.basename}" in listing
            has_zip = zipped is not None and f"{here}/{zipped.basename}" in listing
            keeps_zip = zipped is not None and self.safe_keep_zip
            if has_zip if keeps_zip else not (has_raw and has_zip):  # the states that need no mending
                cache_usage_per_shard[index] = raw.bytes * has_raw + (zipped.bytes if zipped and has_zip else 0)
            else:
                cache_usage_per_shard[index] = shard.set_up_local(listing, self.safe_keep_zip)

    def make_ready(self, raw: FileInfo, zipped: FileInfo | None, compression: str | None) -> int:
        """Unpack and check a shard's file, leaving no half of it under its name; returns the bytes this added.

        Raises UserError for a place that cannot be read or written, ValueError for a damaged shard.
        """
        target, stored, mark = os.path.join(self.local, raw.basename), zipped or raw, secrets.token_hex(4)
        if os.path.isfile(target):
            return 0
        own, fetched = f"{target}.{mark}{PART}", f"{stored.basename}.{mark}{PART}"
        packed = str(Path(self.origin or self.local, stored.basename if self.origin else fetched))
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if self.origin is None:
                self.fetch(stored.basename, fetched)
            if zipped and compression == "zstd":
                _unpack(packed, own, zipped.hashes["xxh64"])
            else:  # not of our builder
                data = Path(packed).read_bytes()
                if xxhash.xxh64(data).hexdigest() != stored.hashes["xxh64"]:
                    raise ValueError(f"Checksum failure: {packed}")
                Path(own).write_bytes(decompress(compression, data) if zipped else data)
            if not self.remote:  # beside the packed shard, for all who may read that
                shutil.copymode(packed, own)
            os.replace(own, target)
        except OSError as error:
            if is_of_place(error):
                raise self._place_error(error, packed) from error
            raise
        finally:
            for path in (own, *([packed] if self.origin is None else [])):
                with contextlib.suppress(OSError):
                    os.unlink(path)
        return raw.bytes

    def _place_error(self, error: OSError, read: str) -> UserError:
        """What to tell of a disk or of rights: it is no damage, and no build would mend it."""
        if error.filename == read and read != self.local:
            return UserError(
                f"stream '{self.name}' cannot be read: {error.strerror}", where=read,
                fix="Check the disk, and who may read the data.",
            )  # fmt: skip
        return UserError(
            f"unpacked shards cannot be written: {error.strerror}", where=self.local,
            fix="Free some space, name another folder with --cache, or bound it with --cache-limit.",
        )  # fmt: skip


def is_of_place(error: Exception) -> bool:
    """Whether a disk or rights are the trouble, and no missing or damaged file."""
    return isinstance(error, OSError) and error.errno is not None and error.errno != errno.ENOENT


def _remove_leftovers(listing: set[str]) -> None:
    """Remove what killed runs left half done; what is younger than a day may be another run's, in progress."""
    for path in [path for path in listing if path.endswith(PART)]:
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime > LEFTOVER_SECONDS:
                os.unlink(path)
                listing.discard(path)


def _unpack(packed: str, target: str, xxh64: str) -> None:
    """Unpack and check a zstd file in one pass; ValueError when it is damaged, and then no target.

    The library holds the file packed and whole, which takes a third longer; a first batch waits for 16 of these.
    """
    digest, decompressor = xxhash.xxh64(), zstandard.ZstdDecompressor().decompressobj(write_size=PIECE)
    intact = False
    try:
        with open(packed, "rb") as source, open(target, "wb") as out:
            while piece := source.read(PIECE):
                digest.update(piece)
                out.write(decompressor.decompress(piece))
        intact = decompressor.eof and digest.hexdigest() == xxh64
    except zstandard.ZstdError:
        pass
    finally:
        if not intact:
            Path(target).unlink(missing_ok=True)
    if not intact:
        raise ValueError(f"Checksum failure: {packed}")


def _files(folder: str) -> Iterator[str]:
    """Paths of everything below `folder` that is no folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                yield entry.path


def shard_error(stream: MixtureStream, shard: Reader, reason: str, *, damaged: bool = True) -> UserError:
    """What to tell the user when a shard cannot be read, `damaged` or for reasons of the disk and of rights."""
    raw, zipped = shard.file_pairs[0]
    stored = zipped or raw
    place = f"in {stream.origin}" if stream.origin else f"fetched from {stream.remote}"
    fix = (
        f"Delete the copies of the shard in {stream.local} and check its remote."
        if stream.origin is None
        else "Build the stream again; python -m corpus.inspect STREAM --verify names every damaged shard."
    )
    if not damaged:
        fix = "Check the disk, and who may read the file."
    return UserError(f"stream '{stream.name}', shard {stored.basename} {place}: {reason}", fix=fix)


def missing_error(name: str, place: str, shard: str, count: int) -> UserError:
    """What to tell the user when `count` shards of a stream on this machine are not there, `shard` the first."""
    return UserError(
        f"stream '{name}', shard {shard} in {place} is missing ({count} missing in all)",
        fix="Build the stream again; python -m corpus.inspect STREAM --verify names every damaged shard.",
    )
