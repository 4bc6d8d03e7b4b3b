"""A remote file read in ranges, for builds that use a little of it. Nothing of it is kept, so no part is ever taken
for the whole file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol, cast

from corpus.acquire import http, hub, remote, urls
from corpus.acquire.models import AcquireConfig, Listing, SourceFile
from corpus.acquire.origins import HubOrigin, Upstream, UrlsOrigin
from corpus.acquire.transfer import AccessDenied, retrying
from corpus.base.errors import UserError

STEP = 64 << 10
"""Bytes asked for at once outside the first window, at least."""
LARGEST = 16 << 20
"""Most bytes asked for at once."""
HELD = 64 << 20
"""Bytes held in memory, the latest ones."""


class Size(Protocol):
    """What is asked of a file's status."""

    @property
    def st_size(self) -> int:
        """Bytes."""


class Readable(Protocol):
    """A file as readers take it: a Path, or one that is read from afar."""

    def open(self, mode: Literal["rb"]) -> Any:
        """Open it for reading bytes."""

    def stat(self) -> Size:
        """Its size."""


@dataclass(frozen=True)
class _Size:
    st_size: int


class RemoteFile:
    """A file on a server, from which only what is read is fetched: ``window`` bytes from ``start``, then in steps."""

    def __init__(self, source: Upstream, file: SourceFile, start: int, window: int) -> None:
        assert file.size is not None
        self.size = file.size
        self.fetched = 0
        """Bytes that came."""
        self._source, self._file, self._start, self._window = source, file, start, window
        self._held: list[tuple[int, bytes]] = []

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """A stream over it; all streams share what was fetched."""
        return cast(BinaryIO, io.BufferedReader(_Stream(self), 64 << 10))

    def stat(self) -> Size:
        """Its size."""
        return _Size(self.size)

    def read(self, offset: int, length: int) -> bytes:
        """Some of the bytes from ``offset`` on, at least one; none at the end."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        for at, data in reversed(self._held):
            if at <= offset < at + len(data):
                return data[offset - at : offset - at + length]
        end = self._start + self._window
        in_window = self._start <= offset + 1 and offset < end
        if in_window:
            wanted = min(LARGEST, end - offset)
        else:
            wanted = max(length, STEP, min(LARGEST, self._window // 8) if offset >= end else 0)
        stop = min([offset + wanted, self.size, *(at for at, _ in self._held if at > offset)])
        data = self._fetch(offset, stop)
        self._held.append((offset, data))
        while len(self._held) > 1 and sum(len(held) for _, held in self._held) > HELD:
            self._held.pop(0)
        return data[:length]

    def _fetch(self, start: int, stop: int) -> bytes:
        where = f"{self._source.title}: {self._file.name}"
        if isinstance(self._source.origin, HubOrigin):
            url, headers = self._file.url, hub.headers()
        else:
            url, headers = urls.through(self._file.url), {}
        try:
            data, total, validator = retrying(lambda: http.read_range(url, headers, where, start, stop), where)
        except AccessDenied as error:
            raise AccessDenied(
                error.what, where=error.where, fix=error.fix or remote.access_fix(self._source)
            ) from None
        listed = self._file.digest or ""
        changed = listed.startswith("etag:") and validator is not None and listed != f"etag:{validator}"
        if total not in (None, self.size) or changed:
            raise UserError("was changed on the server since it was listed", where=where, fix="Use --refresh.")
        self.fetched += len(data)
        return data


class _Stream(io.RawIOBase):
    """One reader's place in a remote file."""

    def __init__(self, file: RemoteFile) -> None:
        self._remote, self._at = file, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The place."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._remote.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as bytes are at hand, fetching the next when none are."""
        data = self._remote.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def can_be_read_in_part(source: Upstream, listing: Listing, file: SourceFile, config: AcquireConfig) -> bool:
    """Whether a file lies on a server that is asked now, and no whole copy of it is here."""
    if not remote.is_remote(source, config) or config.offline or file.size is None:
        return False
    if not isinstance(source.origin, HubOrigin | UrlsOrigin):
        return False
    return not remote.entry(source, listing, file, config).complete


def open_part(source: Upstream, file: SourceFile, start: int, window: int) -> RemoteFile | None:
    """The file to be read in part; None when its server has no ranges, so that it must be fetched whole."""
    part = RemoteFile(source, file, start, window)
    try:
        part.read(max(0, start - 1), 1)
    except http.NoRanges:
        return None
    return part
