"""Where a source's files lie upstream: the `origin` of a catalogue entry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from corpus.base.config import Strict


class HubOrigin(Strict):
    """Files of a Hugging Face dataset repository at a pinned revision, read raw (never through a loader script)."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    revision: str
    """Commit hash (or, where none is known to us, a branch: then the build records the commit it resolved to)."""
    files: list[str] = Field(min_length=1)
    """Glob patterns inside the repository; ** crosses folders."""
    exclude: list[str] = []


class UrlsOrigin(Strict):
    """Plain HTTPS files: an explicit list, or a file (URL) listing one URL per line."""

    kind: Literal["urls"] = "urls"
    urls: list[str] = []
    """URLs; a numeric range such as {0000..0048} stands for each number in it, with the zeros kept."""
    url_list: str | None = None
    """URL of a text file with one URL per line."""
    match: str | None = None
    """Keep only the URLs of `url_list` that match this glob."""


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


Origin = Annotated[HubOrigin | UrlsOrigin | S3Origin | FilesOrigin | EmbeddedOrigin, Field(discriminator="kind")]


class Upstream(Strict):
    """What acquisition needs to know of a source; the catalogue says more of it."""

    title: str
    """Name for people."""
    origin: Origin
    gate: str | None = None
    """URL where access must be requested, for gated repositories."""
