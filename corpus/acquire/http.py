"""HTTP with ranges. `requests` gives proxies, CA bundles and pooled connections, and comes with `datasets` whichever
transport the installed huggingface-hub uses; that library's own download offers neither a byte bound nor URL lists."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from corpus.acquire import network
from corpus.acquire.disk import CHUNK
from corpus.acquire.transfer import AccessDenied, Body, Retry
from corpus.base.errors import UserError

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two pieces of an answer."""
MAX_REDIRECTS = 8
MAX_TEXT_BYTES = 64 << 20
"""Largest answer read into memory (URL lists)."""

_local = threading.local()


@dataclass(frozen=True)
class Meta:
    """What a HEAD request tells of a file."""

    size: int | None
    etag: str | None
    """Strong ETag, quotes included."""


def shown(url: str) -> str:
    """A URL as errors show it: without query (signatures) and user name (passwords)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _session() -> requests.Session:
    # One per thread and process: a connection must not be shared across a fork.
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.session = os.getpid(), requests.Session()
        # A no-op auth keeps requests from adding credentials of ~/.netrc on its own.
        _local.session.auth = lambda request: request
    session: requests.Session = _local.session
    return session


@contextlib.contextmanager
def request(
    method: str, url: str, headers: dict[str, str], where: str, *, follow: bool = True
) -> Iterator[requests.Response]:
    """An answer with status 200, 206 or 416 (or a redirect when not ``follow``).

    ``Authorization`` goes to the host of ``url`` only. Raises Retry for what may pass, AccessDenied for 401 and 403,
    UserError for the rest.
    """
    home = urlsplit(url)
    at = url
    headers = {"Accept-Encoding": "identity", **headers}
    for _ in range(MAX_REDIRECTS):
        here = urlsplit(at)
        if here.scheme not in ("http", "https") or (home.scheme == "https" and here.scheme == "http"):
            raise UserError(f"refusing a redirect to {here.scheme}://{here.hostname}", where=where)
        if (here.scheme, here.netloc) != (home.scheme, home.netloc):
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        with _sent(method, at, headers, where) as response:
            if follow and response.status_code in (301, 302, 303, 307, 308) and "Location" in response.headers:
                at = urljoin(at, response.headers["Location"])
                continue
            raise_for(response.status_code, response.headers, url, where)
            yield response
            return
    raise UserError(f"more than {MAX_REDIRECTS} redirects from {shown(url)}", where=where)


@contextlib.contextmanager
def _sent(method: str, url: str, headers: dict[str, str], where: str) -> Iterator[requests.Response]:
    """Send one request; failures of the connection, also while the body is read, become Retry."""
    response = None
    try:
        try:
            response = _session().request(
                method, url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False
            )
        except requests.RequestException:
            raise
        except OSError as error:
            # What requests leaves as it is: a certificate file that is not there.
            raise network.failure(error, url, where) or UserError(str(error), where=where) from None
        yield response
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.InvalidHeader):
        network.check_settings()  # a proxy's address may be meant
        raise UserError(f"not a valid URL: {shown(url)}", where=where) from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        if (final := network.failure(error, url, where)) is not None:
            raise final from None
        raise Retry(f"connection to {urlsplit(url).hostname} failed ({type(error).__name__})") from None
    except urllib3.exceptions.HTTPError as error:
        raise Retry(f"connection to {urlsplit(url).hostname} was cut ({type(error).__name__})") from None
    finally:
        if response is not None:
            response.close()


def raise_for(status: int, headers: Mapping[str, str], url: str, where: str) -> None:
    """Raise what an answer's status means: Retry, AccessDenied or UserError; nothing below 400 and for 416."""
    if status < 400 or status == 416:
        return
    code = headers.get("X-Error-Code", "")
    if status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
        raise Retry(f"{urlsplit(url).hostname} answered {status}", _retry_after(headers))
    if status in (401, 403):
        problem = {"GatedRepo": "access must be requested", "RepoNotFound": "no such repository, or it is private"}
        raise AccessDenied(problem.get(code, f"access denied ({status}) to {shown(url)}"), where=where)
    raise UserError(f"the server answered {status}{f' {code}' if code else ''} for {shown(url)}", where=where)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from Retry-After (seconds or a date) or the hub's RateLimit header (`...;r=0;t=55`)."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    spent = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
    return float(spent[1]) if spent else None


def probe(url: str, headers: dict[str, str], where: str) -> Meta:
    """Size and ETag of a file, without downloading it."""
    try:
        with request("HEAD", url, headers, where) as response:
            return Meta(_length(response), _strong_etag(response))
    except UserError:
        # Some servers answer GET only; if this one is not of that kind, the second answer says what is wrong.
        with request("GET", url, {**headers, "Range": "bytes=0-0"}, where) as response:
            total = _length(response) if response.status_code == 200 else _range(response)[1]
            return Meta(total, _strong_etag(response))


def read_text(url: str, headers: dict[str, str], where: str) -> str:
    """A small text file; raises UserError when it is large or not UTF-8."""
    with request("GET", url, headers, where) as response:
        data = bytearray()
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            data += chunk
            if len(data) > MAX_TEXT_BYTES:
                raise UserError(f"{shown(url)} is larger than {MAX_TEXT_BYTES >> 20} MiB", where=where)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{shown(url)} is not UTF-8 text", where=where) from None


@contextlib.contextmanager
def open_at(url: str, headers: dict[str, str], where: str, offset: int, validator: str | None) -> Iterator[Body]:
    """A file from ``offset`` on; from 0 when the server has no ranges or ``validator`` names another file."""
    if offset:
        headers = {**headers, "Range": f"bytes={offset}-", **({"If-Range": validator} if validator else {})}
    with request("GET", url, headers, where) as response:
        start, total = (0, _length(response)) if response.status_code == 200 else _range(response)
        if response.status_code == 416:
            # Nothing is left after the offset: either all is here, or what is here is of another file.
            start = offset if total == offset else -1
        chunks = response.raw.stream(CHUNK, decode_content=False) if response.status_code != 416 else iter(())
        yield Body(start, total, _strong_etag(response) or _old_date(response), chunks)


class NoRanges(Exception):
    """The server sends whole files only."""


def read_range(
    url: str, headers: dict[str, str], where: str, start: int, stop: int
) -> tuple[bytes, int | None, str | None]:
    """(bytes from ``start`` to before ``stop``, bytes of the whole file, strong ETag); all or Retry."""
    with request("GET", url, {**headers, "Range": f"bytes={start}-{stop - 1}"}, where) as response:
        if response.status_code == 200:
            raise NoRanges
        first, total = _range(response)
        if response.status_code == 416 or first != start:
            raise Retry("the server answered with another range than asked for")
        data = b"".join(response.raw.stream(CHUNK, decode_content=False))
        if len(data) != stop - start:
            raise Retry("the connection was cut")
        return data, total, _strong_etag(response)


def _length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _range(response: requests.Response) -> tuple[int, int | None]:
    """First byte and size of the whole file from Content-Range; a first byte of -1 when it is not understood."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    return int(found[1] or -1), int(found[2]) if found[2] != "*" else None


def _old_date(response: requests.Response) -> str | None:
    """Last-Modified where it tells one version from the next: well before the answer was made (RFC 9110, 8.8.2.2)."""
    value = response.headers.get("Last-Modified", "").strip()
    with contextlib.suppress(ValueError, TypeError):
        answered = parsedate_to_datetime(response.headers.get("Date", ""))
        if answered.timestamp() - parsedate_to_datetime(value).timestamp() > 60:
            return value
    return None


def _strong_etag(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag", "").strip()
    return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 2 else None
