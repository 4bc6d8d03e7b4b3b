"""Files behind plain URLs: explicit lists, numeric ranges, and lists that are themselves behind a URL."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote, urljoin, urlsplit

from corpus.acquire import http
from corpus.acquire.disk import read_note, short_hash, write_note
from corpus.acquire.local import hashed, mirrored_path
from corpus.acquire.models import AcquireConfig, Listing, SourceFile, listing_of
from corpus.acquire.names import safe_name
from corpus.acquire.origins import UrlsOrigin
from corpus.acquire.transfer import retrying
from corpus.base.errors import UserError

MAX_URLS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def list_urls(origin: UrlsOrigin, config: AcquireConfig, where: str) -> Listing:
    """One file per URL, with size and ETag from a HEAD request; kept, so that a build continues with the same files.

    A file's name is the path of its URL (the host stands before it only where two paths would be the same).
    """
    note = config.cache / "listings" / "urls" / f"{short_hash(repr([origin.urls, origin.url_list, origin.match]))}.json"
    if config.mirror is None:
        known = read_note(note)
        fresh = config.offline or not config.refresh
        if fresh and isinstance(known, dict) and isinstance(known.get("files"), list):
            return listing_of(SourceFile(*file) for file in known["files"])
        if config.offline:
            raise UserError("its URLs were never listed here", where=where, fix="Run it once without --offline.")
    named = _names(_urls(origin, config, where), where)
    if config.mirror is not None:
        return listing_of(_mirrored(named, config, where))

    def described(item: tuple[str, str]) -> SourceFile:
        name, url = item
        meta = retrying(lambda: http.probe(through(url), {}, where), f"{where}: {name}")
        size = None if meta.size is None else f"size:{meta.size}"
        return SourceFile(name, url, meta.size, f"etag:{meta.etag}" if meta.etag else size)

    with ThreadPoolExecutor(8) as pool:
        listing = listing_of(pool.map(described, named.items()))
    write_note(note, {"files": [[file.name, file.url, file.size, file.digest] for file in listing.files]})
    return listing


def through(url: str) -> str:
    """Where ``url`` is read from: itself, or `$CORPUS_URLS_ENDPOINT/<host>/<path>`, a caching server or a test's."""
    relay = os.environ.get("CORPUS_URLS_ENDPOINT")
    parts = urlsplit(url)
    if not relay:
        return url
    return f"{relay.rstrip('/')}/{parts.netloc}{parts.path}{f'?{parts.query}' if parts.query else ''}"


def expand(pattern: str, where: str) -> list[str]:
    """The URLs a pattern stands for: `{0000..0048}` counts, with the zeros kept."""
    pieces: list[list[str]] = []
    count, at = 1, 0
    for found in _RANGE.finditer(pattern):
        first, last = int(found[1]), int(found[2])
        count *= max(0, last - first + 1)
        if not 0 < count <= MAX_URLS:
            raise UserError(f"the range {found[0]} is empty or too long", where=where)
        width = len(found[1])
        pieces += [[pattern[at : found.start()]], [f"{number:0{width}d}" for number in range(first, last + 1)]]
        at = found.end()
    return ["".join(parts) for parts in itertools.product(*pieces, [pattern[at:]])]


def relative_path(url: str) -> str:
    """`<host>/<path>` of a URL: where a mirror and the download folder keep the file."""
    parts = urlsplit(url)
    return f"{parts.netloc}/{unquote(parts.path).lstrip('/')}"


def _urls(origin: UrlsOrigin, config: AcquireConfig, where: str) -> list[str]:
    urls = [url for pattern in origin.urls for url in expand(pattern, where)]
    if origin.url_list is not None:
        lines = _read_list(origin.url_list, config, where).splitlines()
        listed = [urljoin(origin.url_list, line.strip()) for line in lines if line.strip() and line[0] != "#"]
        if len(listed) > MAX_URLS:
            raise UserError(f"the URL list has more than {MAX_URLS:,} lines", where=where)
        urls += [url for url in listed if origin.match is None or fnmatch.fnmatchcase(url, origin.match)]
    if not urls:
        raise UserError(
            "no URL is left", where=where, fix=f"Check `match`: {origin.match!r}." if origin.match else None
        )
    return list(dict.fromkeys(urls))


def _read_list(url: str, config: AcquireConfig, where: str) -> str:
    _checked(url, where)
    if config.mirror is None:
        return retrying(lambda: http.read_text(through(url), {}, where), where)
    path = mirrored_path(config.mirror / "urls", relative_path(url), where)
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(http.MAX_TEXT_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=f"{where}: {path}") from None


def _checked(url: str, where: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"not an http(s) URL: {http.shown(url)[:200]!a}", where=where)
    if "@" in parts.netloc:
        raise UserError(f"the URL of {parts.hostname} has a user name or password in it", where=where, fix="Remove it.")
    safe_name(relative_path(url), where)
    return url


def _names(urls: list[str], where: str) -> dict[str, str]:
    """name -> URL."""
    paths = {_checked(url, where): unquote(urlsplit(url).path).lstrip("/") for url in urls}
    repeated = {path for path, count in Counter(paths.values()).items() if count > 1}
    named: dict[str, str] = {}
    for url, path in paths.items():
        name = relative_path(url) if path in repeated else path
        if name in named:
            raise UserError(f"two URLs have the path {name}", where=where, fix="Make them two sources.")
        named[name] = url
    return named


def _mirrored(named: dict[str, str], config: AcquireConfig, where: str) -> list[SourceFile]:
    assert config.mirror is not None
    paths = [mirrored_path(config.mirror / "urls", relative_path(url), where) for url in named.values()]
    return hashed(dict(zip(named, paths, strict=True)), config)
