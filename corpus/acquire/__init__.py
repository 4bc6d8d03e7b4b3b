"""Acquisition: which files a source has, and a complete, verified local copy of each.

In comes the `origin` of a source and where downloads go (AcquireConfig); out go listings and paths of local files. Only
the base is imported. Listings are cached under `<cache>/listings`, downloads kept as
`<cache>/datasets/<org>/<repo>/<commit>/<path>`, `<cache>/urls/<host>/<path>` and `<cache>/s3/<bucket>/<key>`. A file
under its final name is complete and verified.
"""

from corpus.acquire.access import check, preflight
from corpus.acquire.files import fetch, list_files, release
from corpus.acquire.models import AcquireConfig, CheckResult, Listing, SourceFile
from corpus.acquire.prefetch import Prefetcher

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
