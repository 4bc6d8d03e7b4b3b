"""The files of a source, whatever its origin: listed, fetched, released."""

from __future__ import annotations

from pathlib import Path

from corpus.acquire import local, remote
from corpus.acquire.generated import list_embedded
from corpus.acquire.hub import list_hub
from corpus.acquire.models import AcquireConfig, Listing, SourceFile
from corpus.acquire.objects import list_objects
from corpus.acquire.origins import EmbeddedOrigin, FilesOrigin, HubOrigin, Upstream, UrlsOrigin
from corpus.acquire.urls import list_urls


def list_files(source: Upstream, config: AcquireConfig) -> Listing:
    """The files of a source at its pinned revision; nothing is downloaded but listings, which are cached.

    Raises UserError when a pattern matches nothing, a name is unsafe, or the source cannot be reached.
    """
    origin, where = source.origin, source.title
    if isinstance(origin, FilesOrigin):
        return local.list_local(origin, config, where)
    if isinstance(origin, EmbeddedOrigin):
        return list_embedded(origin, config)
    if isinstance(origin, UrlsOrigin):
        return list_urls(origin, config, where)
    if config.mirror is not None:
        return local.list_mirror(origin, config, where)
    return list_hub(origin, config, where) if isinstance(origin, HubOrigin) else list_objects(origin, config, where)


def fetch(source: Upstream, listing: Listing, file: SourceFile, config: AcquireConfig) -> Path:
    """A complete, verified local copy of ``file``; for local files the path itself.

    Processes that want the same file at once download it once. Under a bound the file stays until :func:`release`
    (or the end of the process). Raises UserError naming source and file.
    """
    if remote.is_remote(source, config):
        return remote.fetch(source, listing, file, config, pin=True)
    return local.fetch(source, file, config)


def release(source: Upstream, file: SourceFile, config: AcquireConfig) -> None:
    """The caller, one unit, no longer needs the file it fetched."""
    if remote.is_remote(source, config):
        remote.release(file)
