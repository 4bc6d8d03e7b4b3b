"""Opening files by the compression that their name ends in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import Any, BinaryIO, cast

COMPRESSED = (".gz", ".zst", ".zstd", ".bz2", ".xz")


ZSTD_PIECE = 2 << 10
"""Compressed bytes unpacked at a time: zstd makes 32 KiB of one byte at most, so this bounds memory at 64 MiB."""


class DamagedFile(Exception):
    """The file ends or breaks before its time."""


def open_decompressed(path: Path, name: str) -> BinaryIO:
    """Open a file for reading, decompressing by the ending of ``name``."""
    if name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if name.endswith((".zst", ".zstd")):
        return io.BufferedReader(_ZstdFile(path))
    if name.endswith(".bz2"):
        return cast(BinaryIO, bz2.open(path, "rb"))
    if name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(path, "rb"))
    return path.open("rb")


class _ZstdFile(io.RawIOBase):
    """A zstd stream of one or more frames that, unlike the library's reader, refuses a file cut off mid-frame."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor(max_window_size=1 << 30)
        self._file = path.open("rb")
        self._frame: Any = None
        self._input = b""
        self._ready = bytearray()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with decompressed bytes as far as they are at hand; 0 at the end."""
        while not self._ready:
            data = self._input or self._file.read(ZSTD_PIECE)
            self._input = b""
            if not data:
                if self._frame is not None:
                    raise DamagedFile("zstd frame without an end")
                return 0
            if self._frame is None:
                self._frame = self._context.decompressobj()
            try:
                self._ready += self._frame.decompress(data)
            except self._error as error:
                raise DamagedFile(str(error)) from None
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        del self._ready[:count]
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
