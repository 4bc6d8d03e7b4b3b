"""The words of acquisition: a file of a source, a listing of files, and where downloads go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, as listed."""

    name: str
    """Posix path inside the source; the file's identity."""
    url: str
    """Where the file is read from (URL or local path); never part of a key."""
    size: int | None
    """Bytes as stored (compressed); None where the server does not say."""
    digest: str | None
    """`sha256:<hex>`, `git:<blob sha1>`, `etag:<value>` or `size:<bytes>`: what a fetched copy is checked against."""


@dataclass(frozen=True)
class Listing:
    """The files of a source at one revision, sorted by name."""

    revision: str
    """Commit hash of a hub repository; elsewhere a hash over names, sizes and content digests (of a mirror that holds
    no known commit, `content-` and that hash)."""
    files: tuple[SourceFile, ...]
    commits: tuple[tuple[str, str], ...] = ()
    """(repository, commit) of each hub repository that the files come from, for the record."""
    unchecked: str | None = None
    """Hash over names, sizes and contents of a mirror that nothing but itself says it is what was pinned."""

    @property
    def bytes(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(file.size or 0 for file in self.files)


@dataclass
class AcquireConfig:
    """How this run reads its sources. Picklable: worker processes get a copy."""

    cache: Path
    """Download folder; safe to share between runs and processes of one machine."""
    mirror: Path | None = None
    """Read hub, URL and S3 sources from this folder instead: `datasets/<org>/<repo>/<path>`, `urls/<host>/<path>`,
    `s3/<bucket>/<key>`. No network is touched then."""
    cache_limit: int | None = None
    """Most bytes of downloads on disk at once; files no unit needs any more make room, least recently used first.
    Only files downloaded under a limit (or with keep=False) count and are ever deleted."""
    keep: bool = True
    """False: delete a downloaded file when the last unit that needs it releases it."""
    offline: bool = False
    """Use only cached listings and downloads; anything else is a UserError."""
    refresh: bool = False
    """Ask anew where branches stand and which files URL lists and stores hold; else the first answer stays."""
    base_dir: Path = Path()
    """Folder that relative globs of `files` sources start from: the recipe's folder."""

    @property
    def bounded(self) -> bool:
        """Whether downloads are ever deleted again."""
        return self.cache_limit is not None or not self.keep


@dataclass(frozen=True)
class CheckResult:
    """What `corpus.sources NAME --check` says of one source; nothing was downloaded for it."""

    reachable: bool
    gated: bool
    """Access must be requested (or a login given) first."""
    files: int
    bytes: int
    problem: str | None
    """Why the source cannot be read; None when it can."""
    fix: str | None
    listing: Listing | None = None
    """Its files, where they could be listed."""


def listing_of(
    files: Iterable[SourceFile],
    revision: str | None = None,
    commits: Iterable[tuple[str, str]] = (),
    unchecked: str | None = None,
) -> Listing:
    """A listing sorted by name; without a ``revision`` it gets a hash over names, sizes and content digests.

    ETags stay out of the hash: they differ between servers that hold the same bytes.
    """
    ordered = tuple(sorted(files, key=lambda file: file.name))
    if revision is None:
        whole = hashlib.sha256()
        for file in ordered:
            content = file.digest if file.digest and file.digest.startswith(("sha256:", "git:")) else ""
            whole.update(f"{file.name}\0{file.size}\0{content}\n".encode())
        revision = whole.hexdigest()[:40]
    return Listing(revision, ordered, tuple(sorted(set(commits))), unchecked)
