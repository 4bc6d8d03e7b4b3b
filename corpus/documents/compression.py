"""Opening files by the compression that their name ends in. What follows a first stream is read whole or refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from corpus.acquire.ranges import Readable
from corpus.base.errors import UserError
from corpus.documents.stand_ins import refuse_stand_in

COMPRESSED = (".gz", ".zst", ".zstd", ".bz2", ".xz")
PIECE = 64 << 10
"""Compressed bytes read at a time."""
ZSTD_PIECE = 2 << 10
"""The same for zstd: it makes 32 KiB of one byte at most, so this bounds memory at 64 MiB."""
ZSTD_WINDOW = 1 << 31
"""Largest window decoded: the library's own limit, and what `zstd --long=31` writes. Only what the content fills of
it takes memory."""
ZSTD_HEADER = 18
"""Bytes of the longest header of a zstd frame."""


Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor


class DamagedFile(Exception):
    """The file ends or breaks before its time."""


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Whatever goes wrong while the file ``name`` is read becomes a UserError that says what it is.

    A limit of ours or of the machine's is never told as damage.
    """
    try:
        yield
    except MemoryError:
        raise UserError(
            "takes more memory to read than this process may have",
            where=name,
            fix="Give each worker more memory, or run fewer of them.",
        ) from None
    except (DamagedFile, EOFError, zlib.error, OSError) as error:
        # gzip tells of damaged data by an OSError of its own, without the system's number.
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot be read: {error.strerror}", where=name) from None
        raise UserError(
            f"the file is cut off or damaged ({error or type(error).__name__})",
            where=name,
            fix="Delete the downloaded copy and run the same command again; if that fails too, the source is damaged.",
        ) from None


def open_decompressed(path: Readable, name: str) -> BinaryIO:
    """Open a file for reading, decompressing by the ending of ``name``; refuses a pointer that stands for a file.

    Reading it may raise what :func:`reading` turns into words.
    """
    refuse_stand_in(path, name)
    if name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path.open("rb")))
    if name.endswith((".zst", ".zstd")):
        return io.BufferedReader(_ZstdFile(path, name))
    if name.endswith(".bz2"):
        return io.BufferedReader(_StreamsFile(path, bz2.BZ2Decompressor, padding=0))
    if name.endswith(".xz"):
        return io.BufferedReader(_StreamsFile(path, lzma.LZMADecompressor, padding=4))
    return path.open("rb")


class _File(io.RawIOBase):
    """The base of files decompressed here."""

    def __init__(self, path: Readable) -> None:
        self._file = path.open("rb")

    def readable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class _StreamsFile(_File):
    """bz2 or xz streams end to end. The library's own readers take a later stream that is damaged for the end."""

    def __init__(self, path: Readable, decompressor: Callable[[], Decompressor], padding: int) -> None:
        super().__init__(path)
        self._new = decompressor
        self._padding = padding
        """Zeros between streams must be a multiple of so many bytes, as the xz format has it; 0 allows none."""
        self._stream: Decompressor | None = decompressor()
        self._input = b""

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with decompressed bytes as far as they are at hand; 0 at the end."""
        while True:
            if self._stream is None:
                if not self._next_stream():
                    return 0
                self._stream = self._new()
            data = b""
            if self._stream.needs_input:
                data = self._input or self._file.read(PIECE)
                self._input = b""
                if not data:
                    raise DamagedFile("it ends inside a compressed stream")
            try:
                made = self._stream.decompress(data, len(buffer))
            except (OSError, lzma.LZMAError) as error:
                raise DamagedFile(str(error)) from None
            if self._stream.eof:
                self._input = self._stream.unused_data
                self._stream = None
            if made:
                buffer[: len(made)] = made
                return len(made)

    def _next_stream(self) -> bool:
        """Whether anything but padding follows the stream that ended."""
        zeros = 0
        while data := self._input or self._file.read(PIECE):
            self._input = data.lstrip(b"\0") if self._padding else data
            zeros += len(data) - len(self._input)
            if self._input:
                break
        if zeros and zeros % self._padding:
            raise DamagedFile("its padding is of no whole number of blocks")
        return bool(self._input)


class _ZstdFile(_File):
    """A zstd stream of one or more frames that, unlike the library's reader, refuses a file cut off mid-frame."""

    def __init__(self, path: Readable, name: str) -> None:
        import zstandard

        super().__init__(path)
        self._name = name
        self._error = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame: Any = None
        self._header = b""
        self._input = b""
        self._ready = bytearray()

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with decompressed bytes as far as they are at hand; 0 at the end."""
        while not self._ready:
            data = self._input or self._file.read(ZSTD_PIECE)
            self._input = b""
            if self._frame is None:
                while len(data) < ZSTD_HEADER and (more := self._file.read(ZSTD_PIECE)):
                    data += more
                self._header = data[:ZSTD_HEADER]
            if not data:
                if self._frame is not None:
                    raise DamagedFile("zstd frame without an end")
                return 0
            if self._frame is None:
                self._frame = self._context.decompressobj()
            try:
                self._ready += self._frame.decompress(data)
            except self._error as error:
                self._refuse_beyond_limits(str(error))
                raise DamagedFile(str(error)) from None
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        del self._ready[:count]
        return count

    def _refuse_beyond_limits(self, error: str) -> None:
        """Raise UserError when a frame is whole, for all we know, but asks for more than is at hand."""
        window = _zstd_window(self._header)
        if "not enough memory" in error or "too much memory" in error:
            allowed = "of 2 GiB are decoded" if window > ZSTD_WINDOW else "take more memory than this process may have"
            raise UserError(
                f"its zstd frames have a window of {window:,} bytes; windows {allowed}",
                where=self._name,
                fix="Compress it again with a smaller window (`zstd --long=27`), or give each worker more memory.",
            )
        if "Dictionary" in error:
            raise UserError(
                "is compressed with a zstd dictionary, which it does not hold",
                where=self._name,
                fix="Compress it again without one.",
            )


def _zstd_window(header: bytes) -> int:
    """Bytes of the window that a frame's header asks for (RFC 8878, 3.1.1.1)."""
    if len(header) < 6:
        return 0
    if header[4] & 0x20:  # a single segment: the window is its content, whose size comes after the dictionary's id
        at = 5 + (0, 1, 2, 4)[header[4] & 3]
        return int.from_bytes(header[at : at + (1 << (header[4] >> 6))], "little")
    base = 1 << (10 + (header[5] >> 3))
    return base + base // 8 * (header[5] & 7)
