"""What can be reached, asked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

from corpus.acquire import http, hub, network, objects, urls
from corpus.acquire.files import list_files
from corpus.acquire.models import AcquireConfig, CheckResult, Listing, SourceFile
from corpus.acquire.origins import HubOrigin, Upstream, UrlsOrigin
from corpus.acquire.remote import access_fix, entry, is_remote
from corpus.acquire.transfer import AccessDenied, retrying
from corpus.base.errors import UserError


def check(source: Upstream, config: AcquireConfig) -> CheckResult:
    """Whether a source can be read with the login at hand, and how much it is. Downloads nothing.

    Raises UserError for a setting of this machine that no request can succeed with.
    """
    if is_remote(source, config) and not config.offline:
        down = network.unreachable(_servers(source))
        if down:
            return CheckResult(False, False, 0, 0, _down(down), None)
    return _check(source, config)


def _check(source: Upstream, config: AcquireConfig) -> CheckResult:
    files = size = 0
    try:
        listing = list_files(source, config)
        files, size = len(listing.files), listing.bytes
        if is_remote(source, config) and not config.offline:
            # Listings may be cached, and those of gated repositories are public: only a file tells.
            retrying(lambda: _touch(source, listing.files[0], source.title), source.title)
    except AccessDenied as error:
        return CheckResult(True, True, files, size, error.what, error.fix or access_fix(source))
    except UserError as error:
        return CheckResult(False, False, files, size, error.what, error.fix)
    return CheckResult(True, False, files, size, None, None, listing)


def _servers(source: Upstream) -> list[str]:
    """Addresses of the servers that a remote source is read from."""
    origin = source.origin
    if isinstance(origin, HubOrigin):
        return [hub.endpoint()]
    if isinstance(origin, UrlsOrigin):
        return [urls.through(url) for url in [*origin.urls, origin.url_list] if url]
    return [objects.endpoint(source.title)]


def _down(hosts: Mapping[str, str]) -> str:
    return ", ".join(f"{host} cannot be reached: {why}" for host, why in hosts.items())


def _here(source: Upstream, config: AcquireConfig) -> CheckResult | None:
    """The answer for a source of which nothing is left to ask a server, or None."""
    if is_remote(source, config):
        if config.refresh and not (isinstance(source.origin, HubOrigin) and hub.is_commit(source.origin.revision)):
            return None
        try:
            listing = list_files(source, replace(config, offline=True))
        except UserError:
            return None
        if not all(entry(source, listing, file, config).complete for file in listing.files):
            return None
        return CheckResult(True, False, len(listing.files), listing.bytes, None, None, listing)
    return _check(source, config)


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
        results = dict(zip(sources, pool.map(lambda source: _here(source, config), sources.values()), strict=True))
        asked = {name: source for name, source in sources.items() if results[name] is None}
        if asked and not config.offline:
            needs = {name: {_host(url): url for url in _servers(source)} for name, source in asked.items()}
            down = network.unreachable(url for servers in needs.values() for url in servers.values())
            if down and down.keys() == {host for servers in needs.values() for host in servers}:
                raise _no_network(needs, down, len(sources) - len(asked))
            for name, servers in needs.items():
                missing = {host: why for host, why in down.items() if host in servers}
                if missing:
                    results[name] = CheckResult(False, False, 0, 0, _down(missing), None)
                    del asked[name]
        results |= dict(zip(asked, pool.map(lambda source: _check(source, config), asked.values()), strict=True))
    done = {name: result for name, result in results.items() if result is not None}
    failed = {name: result for name, result in done.items() if result.problem is not None}
    if not failed:
        return {name: result.listing for name, result in done.items() if result.listing is not None}
    details = []
    for name, result in failed.items():
        # How to log in is said once, at the end.
        advice = (result.fix or "").replace(f" {hub.LOGIN}.", "").rstrip(".")
        details.append(f"{name}: {result.problem}{f' ({advice})' if advice else ''}")
    login = f"{hub.LOGIN}, with an account that accepted the terms; or read copies with --mirror DIR."
    what = f"{len(failed)} of {len(sources)} sources cannot be read"
    fix = login if any(result.gated for result in failed.values()) else None
    if len(details) == 1:
        # One is told on one line.
        raise UserError(f"{what}: {details[0]}", fix=fix)
    raise UserError(what, fix=fix, details=details)


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _no_network(needs: Mapping[str, Mapping[str, str]], down: Mapping[str, str], here: int) -> UserError:
    hosts = ", ".join(f"{host} ({why})" for host, why in list(down.items())[:3])
    return UserError(
        f"no hub can be reached: {hosts}{' and others' if len(down) > 3 else ''}",
        fix=hub.WITHOUT_NETWORK + (f" {here} other sources are here." if here else ""),
        details=[f"{name}: {', '.join(servers)}" for name, servers in needs.items()],
    )
