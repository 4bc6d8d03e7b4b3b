"""What can be reached, asked before any work starts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from corpus.acquire import http, hub
from corpus.acquire.listing import list_files
from corpus.acquire.models import AcquireConfig, CheckResult
from corpus.acquire.remote import access_fix, is_remote
from corpus.acquire.transfer import AccessDenied, retrying
from corpus.catalogue.models import HubOrigin, Source
from corpus.errors import UserError


def check(source: Source, config: AcquireConfig) -> CheckResult:
    """Whether a source can be read with the login at hand, and how much it is. Downloads nothing."""
    files = size = 0
    try:
        listing = list_files(source, config)
        files, size = len(listing.files), listing.bytes
        if isinstance(source.origin, HubOrigin) and is_remote(source, config) and not config.offline:
            # Listings of gated repositories are public, their files are not.
            first = listing.files[0]
            retrying(lambda: _head(first.url, source.title), source.title)
    except AccessDenied as error:
        return CheckResult(True, True, files, size, error.what, error.fix or access_fix(source))
    except UserError as error:
        return CheckResult(False, False, files, size, error.what, error.fix)
    return CheckResult(True, False, files, size, None, None)


def _head(url: str, where: str) -> None:
    with http.request("HEAD", url, hub.headers(), where, follow=False):
        pass


def preflight(sources: dict[str, Source], config: AcquireConfig) -> None:
    """List and try all sources at once; raises one UserError that names every source that cannot be read, and why."""
    with ThreadPoolExecutor(8) as pool:
        results = dict(zip(sources, pool.map(lambda source: check(source, config), sources.values()), strict=True))
    failed = {name: result for name, result in results.items() if result.problem is not None}
    if not failed:
        return
    parts = []
    for name, result in failed.items():
        # How to log in is said once, at the end.
        fix = (result.fix or "").replace(f" {hub.LOGIN}.", "").rstrip(".")
        parts.append(f"{name}: {result.problem}{f' ({fix})' if fix else ''}")
    login = f"{hub.LOGIN}, with an account that accepted the terms; or read copies with --mirror DIR."
    raise UserError(
        f"{len(failed)} of {len(sources)} sources cannot be read: {'; '.join(parts)}",
        fix=login if any(result.gated for result in failed.values()) else None,
    )
