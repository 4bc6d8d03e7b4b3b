"""Files that are here already: `files` globs and the folders of a mirror."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from corpus.acquire.hashes import contents, git_sha1
from corpus.acquire.hub import is_commit, known_listing
from corpus.acquire.models import AcquireConfig, Listing, SourceFile, listing_of
from corpus.acquire.names import inside, is_glob, safe_name, select, static_prefix
from corpus.acquire.origins import FilesOrigin, HubOrigin, S3Origin, Upstream
from corpus.base.errors import UserError


def list_local(origin: FilesOrigin, config: AcquireConfig, where: str) -> Listing:
    """The files of a `files` source with their SHA-256; names are relative to the recipe's folder.

    Absolute patterns get names relative to the folder they have in common, so that no name tells of this machine.
    """
    matches: dict[str, Path] = {}  # real path -> as matched
    real = _RealPaths()
    outside: list[Path] = []
    base = config.base_dir.absolute()
    for pattern in origin.paths:
        root, found = _matches(pattern, base, real, where)
        if not root.is_relative_to(base):
            outside.append(root)
        for path in found:
            matches.setdefault(real.of(path), path)
    common = Path(os.path.commonpath(outside)) if outside else base
    files: dict[str, SourceFile] = {}
    paths = list(matches.values())
    for path, content in zip(paths, contents(paths, config.cache), strict=True):
        name = path.relative_to(base if path.is_relative_to(base) else common).as_posix()
        if name in files:
            raise UserError(f"two files would be called {name}", where=where, fix="Put them under one folder.")
        files[name] = SourceFile(safe_name(name, where), str(path), content.size, f"sha256:{content.sha256}")
    return listing_of(files.values())


class _RealPaths:
    """Paths with their symlinks resolved; each folder's is looked up once."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """The real path of a file."""
        if os.path.islink(path):
            return os.path.realpath(path)
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = os.path.realpath(path.parent)
        return os.path.join(folder, path.name)


def _matches(pattern: str, base: Path, real: _RealPaths, where: str) -> tuple[Path, list[Path]]:
    """The folder a pattern starts in, and the files it matches, none of them outside that folder."""
    if "\0" in pattern or ".." in pattern.split("/"):
        raise UserError(f"the glob {pattern!a} has a '..' or NUL in it", where=where, fix="Use an absolute path.")
    root = base / static_prefix(pattern)
    rest = (base / pattern).relative_to(root).as_posix()
    found: list[Path] = []
    home = os.path.join(os.path.realpath(root), "")
    for name in sorted(glob.iglob(rest, root_dir=root, recursive=True), key=lambda name: (len(name), name)):
        path = root / name
        if not path.is_file():
            refuse_broken_link(path, name, where)
            continue
        if is_glob(pattern) and not real.of(path).startswith(home):
            raise UserError(
                f"{name} is a symlink that leads out of {root}",
                where=where,
                fix="Name the file itself, or remove the link.",
            )
        found.append(path)
    if not found:
        raise UserError(f"no file matches {pattern!r}", where=where, fix=f"Looked in {root}.")
    return root, found


def refuse_broken_link(path: Path, name: str, where: str) -> None:
    """Raise UserError for a link whose file is not there: what it should have held is unknown."""
    if path.is_symlink() and not path.exists():
        raise UserError(
            f"{name} is a link to a file that is not there",
            where=where,
            fix="Fetch the file (with `git annex get`, where that made the link), or remove the link.",
        )


def list_mirror(origin: HubOrigin | S3Origin, config: AcquireConfig, where: str) -> Listing:
    """The files of a hub or S3 source in the mirror.

    Where the hub was asked before, they are held against its listing, and each is checked when it is fetched. Otherwise
    a mirror is taken to hold the pinned revision, and all of it is hashed once, for the record.
    """
    assert config.mirror is not None
    if isinstance(origin, S3Origin):
        patterns = [safe_name(path.removeprefix("s3://"), where) for path in origin.paths]
        return listing_of(hashed(_mirrored(config.mirror / "s3", patterns, [], where), config))
    root = config.mirror / "datasets" / origin.repo
    known = known_listing(origin, config, where)
    if known is not None:
        return replace(known, files=tuple(_as_listed(root, file, where) for file in known.files))
    found = listing_of(hashed(_mirrored(root, origin.files, origin.exclude, where), config))
    if not is_commit(origin.revision):
        return replace(found, revision=f"content-{found.revision}")
    return Listing(origin.revision, found.files, ((origin.repo, origin.revision),), unchecked=found.revision)


def _as_listed(root: Path, file: SourceFile, where: str) -> SourceFile:
    """A file of the hub's listing, read from the mirror."""
    path = mirrored_path(root, file.name, where)
    size = path.stat().st_size
    if size != file.size:
        raise _differs(path, f"{size:,} bytes", f"{file.size:,}", where)
    return replace(file, url=str(path))


def _differs(path: Path, found: str, wanted: str, where: str) -> UserError:
    fix = "Copy it from the hub again, at the revision that the source is pinned to."
    return UserError(f"is not the hub's file: it has {found} instead of {wanted}", where=f"{where}: {path}", fix=fix)


def _mirrored(root: Path, patterns: Sequence[str], exclude: Sequence[str], where: str) -> dict[str, Path]:
    if not root.is_dir():
        raise UserError("the mirror has no such folder", where=f"{where}: {root}", fix="Copy the source there.")
    names: set[str] = set()
    for start in {static_prefix(pattern) for pattern in patterns}:
        for folder, _, members in os.walk(root / start):
            names.update((Path(folder) / member).relative_to(root).as_posix() for member in members)
    return {name: mirrored_path(root, name, where) for name in select(sorted(names), patterns, exclude, where)}


def mirrored_path(root: Path, name: str, where: str) -> Path:
    """Where a file lies in the mirror; raises UserError when it is missing."""
    path = inside(root, name, where)
    if not path.is_file():
        raise UserError("is missing from the mirror", where=f"{where}: {path}", fix="Copy it there.")
    return path


def hashed(files: Mapping[str, Path], config: AcquireConfig) -> list[SourceFile]:
    """The entries of files by name, with their SHA-256."""
    known = contents(list(files.values()), config.cache)
    return [
        SourceFile(name, str(path), content.size, f"sha256:{content.sha256}")
        for (name, path), content in zip(files.items(), known, strict=True)
    ]


def fetch(source: Upstream, file: SourceFile, config: AcquireConfig) -> Path:
    """The local path of a listed file; raises UserError when it is gone, or is not the file that was listed."""
    path, where = Path(file.url), source.title
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=f"{where}: {path}") from None
    if size != file.size:
        raise UserError(
            f"has {size} bytes, but had {file.size} when it was listed", where=f"{where}: {path}", fix="Build again."
        )
    if isinstance(source.origin, HubOrigin):
        kind, _, wanted = (file.digest or "").partition(":")
        found = git_sha1(path) if kind == "git" else contents([path], config.cache)[0].sha256
        if found != wanted:
            raise _differs(path, f"{kind} {found}", wanted, where)
    return path
