"""What this machine's settings say of the network, and whether servers can be reached at all.

Neither passes by waiting, so neither is retried: a wrong setting is named, and a missing network noticed in seconds.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from corpus.base.errors import UserError

CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE")
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
ENDPOINTS = ("HF_ENDPOINT", "CORPUS_URLS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CONNECT_SECONDS = 5.0
"""To wait for a server's first sign."""
LOOKS = 2
PAUSE = 1.0
"""Seconds between two looks at a server that does not answer."""


def check_settings() -> None:
    """Raise a UserError that names the variable of the environment with which no request can succeed, if any does."""
    for name in CERTIFICATES:
        path = os.environ.get(name)
        if path and not os.access(path, os.R_OK):
            problem = "does not exist" if not os.path.exists(path) else "cannot be read"
            raise UserError(
                f"{path} {problem}", where=name, fix="Let it name a file of certificates that is here, or unset it."
            )
    for name in PROXIES:
        value = os.environ.get(name) or ""
        if value and (wrong := _address_problem(value if "://" in value else f"http://{value}", PROXY_SCHEMES)):
            raise UserError(f"{_shown(value)} is no proxy: {wrong}", where=name, fix="Correct it, or unset it.")
    for name in ENDPOINTS:
        value = os.environ.get(name) or ""
        if value and (wrong := _address_problem(value, ("http", "https"))):
            raise UserError(
                f"{_shown(value)} is no address of a server: {wrong}",
                where=name,
                fix="Write it as https://host, or unset it.",
            )


def _address_problem(value: str, schemes: tuple[str, ...]) -> str | None:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        return str(error).split(" could")[0]
    if parts.scheme not in schemes:
        return f"the scheme is '{parts.scheme}'" if "://" in value else "it has no scheme"
    if not parts.hostname or any(char.isspace() for char in value):
        return "it has no host"
    if port == 0:
        return "the port is 0"
    if parts.scheme.startswith("socks"):
        try:
            import socks  # noqa: F401
        except ImportError:
            return "PySocks, which such proxies need, is not installed"
    return None


def _shown(value: str) -> str:
    """A setting without the password that may be in it."""
    head, at, tail = value.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at and "://" in head else tail


def unreachable(urls: Iterable[str]) -> dict[str, str]:
    """Host -> why it cannot be reached, for those of the addresses' hosts that do not answer.

    Raises UserError when a setting, a proxy included, is what keeps them from being reached.
    """
    check_settings()
    hosts = {urlsplit(url).netloc.rpartition("@")[2]: url for url in urls}
    if not hosts:
        return {}
    with ThreadPoolExecutor(min(16, len(hosts))) as pool:
        found = dict(zip(hosts, pool.map(_unreachable, hosts.values()), strict=True))
    return {host: why for host, why in found.items() if why}


def _unreachable(url: str) -> str | None:
    proxy, name = _proxy_of(url)
    problem = None
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE)
        problem = _no_answer(proxy or url)
        if problem is None:
            return None
    if proxy:
        raise UserError(
            f"the proxy {_shown(proxy)} cannot be reached: {problem}", where=name, fix="Correct or unset it."
        )
    return problem


def _no_answer(url: str) -> str | None:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 1080)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except socket.gaierror:
        return "its name is not known here"
    except TimeoutError:
        return f"no answer within {CONNECT_SECONDS:.0f} s"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return None


def _proxy_of(url: str) -> tuple[str | None, str | None]:
    """The proxy that requests would send ``url`` through, and the variable that says so."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy is None:
        return None, None
    name = next((name for name in PROXIES if os.environ.get(name) == proxy), "the proxy's settings")
    return proxy if "://" in proxy else f"http://{proxy}", name


def failure(error: BaseException, url: str, where: str) -> UserError | None:
    """What to tell of a failed connection that a retry cannot mend, or None: it may pass."""
    try:
        check_settings()
    except UserError as wrong:
        return wrong
    chain: BaseException | None = error
    for _ in range(10):
        if chain is None:
            break
        if isinstance(chain, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(chain):
            return UserError(
                f"the certificate of {urlsplit(url).hostname} is not trusted here",
                where=where,
                fix="Where a proxy stands between, let REQUESTS_CA_BUNDLE name its certificates.",
            )
        chain = chain.__cause__ or chain.__context__
    return None
