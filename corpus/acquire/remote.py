"""Files of hub, URL and S3 sources: where they are kept, and how they are brought here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from corpus.acquire import http, hub, objects, store, urls
from corpus.acquire.disk import short_hash
from corpus.acquire.models import AcquireConfig, Listing, SourceFile
from corpus.acquire.names import inside
from corpus.acquire.origins import HubOrigin, S3Origin, Upstream, UrlsOrigin
from corpus.acquire.store import Entry
from corpus.acquire.transfer import AccessDenied, Job, Open, download
from corpus.base.errors import UserError

_fetched: dict[SourceFile, Entry] = {}
"""What this process fetched under a bound; a SourceFile's URL tells repository and commit."""


def access_fix(source: Upstream) -> str | None:
    """What to do when a source denies access: the page with its terms, and how to log in."""
    page = source.gate
    if page is None and isinstance(source.origin, HubOrigin):
        page = hub.gate_url(source.origin)
    return f"Accept the terms at {page}. {hub.LOGIN}." if page else None


def is_remote(source: Upstream, config: AcquireConfig) -> bool:
    """Whether the source's files are downloaded (not local, generated or in the mirror)."""
    return config.mirror is None and isinstance(source.origin, (HubOrigin, UrlsOrigin, S3Origin))


def entry(source: Upstream, listing: Listing, file: SourceFile, config: AcquireConfig) -> Entry:
    """Where a file is kept in the cache; raises UserError for a name that would lead out of it."""
    origin = source.origin
    where = f"{source.title}: {file.name}"
    if isinstance(origin, HubOrigin):
        path = f"datasets/{origin.repo}/{listing.revision}/{file.name}"
    elif isinstance(origin, S3Origin):
        path = f"s3/{file.name}"
    else:
        query = urlsplit(file.url).query
        # URLs that differ in their query only are different files.
        path = f"urls/{f'{short_hash(query)}/' if query else ''}{urls.relative_path(file.url)}"
    inside(config.cache, path, where)
    return Entry(config, path, file.size, where)


def fetch(
    source: Upstream,
    listing: Listing,
    file: SourceFile,
    config: AcquireConfig,
    *,
    pin: bool,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """The complete, verified local copy of a remote file, downloaded when it is not here."""

    def bring(wanted: Entry) -> None:
        if config.offline:
            raise UserError("was not downloaded yet", where=wanted.where, fix="Run it once without --offline.")
        job = Job(
            open_at=_opener(source, file, wanted.where),
            target=wanted.target,
            partial=wanted.partial,
            size=file.size,
            digest=file.digest,
            where=wanted.where,
            max_bytes=config.cache_limit,
            cancelled=cancelled,
        )
        try:
            download(job)
        except AccessDenied as error:
            raise AccessDenied(error.what, where=error.where, fix=error.fix or access_fix(source)) from None

    wanted = entry(source, listing, file, config)
    path = store.fetch(wanted, bring, pin=pin, cancelled=cancelled)
    if pin and config.bounded:
        _fetched[file] = wanted
    return path


def release(file: SourceFile) -> None:
    """A unit of this process is done with a file it got from :func:`fetch`."""
    if file in _fetched:
        store.release(_fetched[file])


def _opener(source: Upstream, file: SourceFile, where: str) -> Open:
    origin = source.origin
    if isinstance(origin, S3Origin):
        return partial(objects.open_at, file.url, where)
    if isinstance(origin, HubOrigin):
        return partial(http.open_at, file.url, hub.headers(), where)
    return partial(http.open_at, urls.through(file.url), {}, where)
