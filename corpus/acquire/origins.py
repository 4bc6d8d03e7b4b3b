"""Where a source's files lie upstream: the `origin` of a catalogue entry."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_serializer

from corpus.base.config import Strict


def public_url(url: str) -> str:
    """A URL without user name and query; a hash of the query stays, as two that differ in it are different files."""
    parts = urlsplit(url)
    place = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    known = f"#query-{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}" if parts.query else ""
    return f"{parts.scheme}://{place}{parts.path}{known}"


def public_text(text: str) -> str:
    """A text, a recipe's for one, with each URL in it as `public_url` tells it."""
    found = r"""https?://[^\s"']*?(?=[\]}),]*(?:[\s"']|$))"""
    return re.sub(found, lambda url: public_url(url[0]) if "?" in url[0] or "@" in url[0] else url[0], text)


class HubOrigin(Strict):
    """Files of a Hugging Face dataset repository at a pinned revision, read raw (never through a loader script)."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    """Name of the dataset repository, owner/name."""
    revision: str
    """Commit hash (or, where none is known to us, a branch: then the build records the commit it resolved to)."""
    files: list[str] = Field(min_length=1)
    """Glob patterns inside the repository; ** crosses folders."""
    exclude: list[str] = []
    """Glob patterns of files to leave out."""


class UrlsOrigin(Strict):
    """Plain HTTPS files: an explicit list, or a file (URL) listing one URL per line."""

    kind: Literal["urls"] = "urls"
    urls: list[str] = []
    """URLs; a numeric range such as {0000..0048} stands for each number in it, with the zeros kept."""
    url_list: str | None = None
    """URL of a text file with one URL per line."""
    match: str | None = None
    """Keep only the URLs of `url_list` that match this glob."""

    @field_serializer("urls", "url_list", when_used="json")
    def _without_secrets(self, value: list[str] | str | None) -> list[str] | str | None:
        # Whatever is written down of an origin may be passed on, and queries hold keys and signatures.
        if value is None:
            return None
        return public_url(value) if isinstance(value, str) else [public_url(url) for url in value]


class S3Origin(Strict):
    """Objects of an S3-compatible store."""

    kind: Literal["s3"] = "s3"
    paths: list[str] = Field(min_length=1)
    """s3:// globs."""


class FilesOrigin(Strict):
    """Local files; relative patterns are relative to the recipe's folder."""

    kind: Literal["files"] = "files"
    paths: list[str] = Field(min_length=1)
    """Glob patterns."""


class EmbeddedOrigin(Strict):
    """Text that every Python installation has; written out as JSON lines before it is read."""

    kind: Literal["embedded"] = "embedded"
    name: Literal["stdlib_code", "reference_docs", "docstring_qa"]
    """The standard library's code, its reference pages, or questions made from its docstrings."""


Origin = Annotated[HubOrigin | UrlsOrigin | S3Origin | FilesOrigin | EmbeddedOrigin, Field(discriminator="kind")]


class Upstream(Strict):
    """What acquisition needs to know of a source; the catalogue says more of it."""

    title: str
    """Name for people."""
    origin: Origin
    """Where its files are."""
    gate: str | None = None
    """URL where access must be requested, for gated repositories."""
