"""Acquisition: which files a source has, and a complete, verified local copy of each.

Listings are cached under `<cache>/listings`, downloads kept as `<cache>/datasets/<org>/<repo>/<commit>/<path>`,
`<cache>/urls/<host>/<path>` and `<cache>/s3/<bucket>/<key>`. A file under its final name is complete and verified.
"""

from __future__ import annotations

from pathlib import Path

from corpus.acquire.access import check, preflight
from corpus.acquire.listing import list_files
from corpus.acquire.local import fetch_local
from corpus.acquire.models import AcquireConfig, CheckResult, Listing, SourceFile
from corpus.acquire.origins import Upstream
from corpus.acquire.prefetch import Prefetcher
from corpus.acquire.remote import bring_here, give_back, is_remote

__all__ = [
    "AcquireConfig",
    "CheckResult",
    "Listing",
    "Prefetcher",
    "SourceFile",
    "check",
    "fetch",
    "list_files",
    "preflight",
    "release",
]


def fetch(source: Upstream, listing: Listing, file: SourceFile, config: AcquireConfig) -> Path:
    """A complete, verified local copy of ``file``; for local files the path itself.

    Processes that want the same file at once download it once. Under a bound the file stays until :func:`release`
    (or the end of the process). Raises UserError naming source and file.
    """
    if is_remote(source, config):
        return bring_here(source, listing, file, config, pin=True)
    return fetch_local(file, source.title)


def release(source: Upstream, file: SourceFile, config: AcquireConfig) -> None:
    """The caller, one unit, no longer needs the file it fetched."""
    if is_remote(source, config):
        give_back(file)
