"""What can be reached, asked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from corpus.acquire import http, hub, objects, urls
from corpus.acquire.files import list_files
from corpus.acquire.models import AcquireConfig, CheckResult, Listing, SourceFile
from corpus.acquire.origins import HubOrigin, Upstream, UrlsOrigin
from corpus.acquire.remote import access_fix, entry, is_remote
from corpus.acquire.transfer import AccessDenied, retrying
from corpus.base.errors import UserError


def check(source: Upstream, config: AcquireConfig) -> CheckResult:
    """Whether a source can be read with the login at hand, and how much it is. Downloads nothing."""
    return _check(source, config, local_is_enough=False)


def _check(source: Upstream, config: AcquireConfig, *, local_is_enough: bool) -> CheckResult:
    """``local_is_enough``: do not ask the server about a source whose files are all downloaded."""
    files = size = 0
    try:
        listing = list_files(source, config)
        files, size = len(listing.files), listing.bytes
        if is_remote(source, config) and not config.offline:
            here = local_is_enough and all(entry(source, listing, file, config).complete for file in listing.files)
            if not here:
                # Listings may be cached, and those of gated repositories are public: only a file tells.
                retrying(lambda: _touch(source, listing.files[0], source.title), source.title)
    except AccessDenied as error:
        return CheckResult(True, True, files, size, error.what, error.fix or access_fix(source))
    except UserError as error:
        return CheckResult(False, False, files, size, error.what, error.fix)
    return CheckResult(True, False, files, size, None, None, listing)


def _touch(source: Upstream, file: SourceFile, where: str) -> None:
    """Ask for the head of a file; raises what a download would."""
    if isinstance(source.origin, HubOrigin):
        with http.request("HEAD", file.url, hub.headers(), where, follow=False):
            pass
    elif isinstance(source.origin, UrlsOrigin):
        http.probe(urls.through(file.url), {}, where)
    else:
        with objects.open_at(file.url, where, 0, None):
            pass


def preflight(sources: Mapping[str, Upstream], config: AcquireConfig) -> dict[str, Listing]:
    """List and try all sources at once; the files of each.

    Raises one UserError that names every source that cannot be read, and why.
    """
    with ThreadPoolExecutor(8) as pool:
        results = dict(
            zip(
                sources,
                pool.map(lambda source: _check(source, config, local_is_enough=True), sources.values()),
                strict=True,
            )
        )
    failed = {name: result for name, result in results.items() if result.problem is not None}
    if not failed:
        return {name: result.listing for name, result in results.items() if result.listing is not None}
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
