"""Files that are here already: `files` globs and the folders of a mirror."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from corpus.acquire.hashes import contents
from corpus.acquire.models import AcquireConfig, Listing, SourceFile, listing_of
from corpus.acquire.names import inside, is_glob, safe_name, select, static_prefix
from corpus.acquire.origins import FilesOrigin, HubOrigin, S3Origin
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


def list_mirror(origin: HubOrigin | S3Origin, config: AcquireConfig, where: str) -> Listing:
    """The files of a hub or S3 source in the mirror. A mirror is taken to hold the pinned revision."""
    assert config.mirror is not None
    if isinstance(origin, HubOrigin):
        pinned = origin.revision if len(origin.revision) == 40 else None
        return listing_of(
            _mirrored(config.mirror / "datasets" / origin.repo, origin.files, origin.exclude, where), pinned
        )
    patterns = [safe_name(path.removeprefix("s3://"), where) for path in origin.paths]
    return listing_of(_mirrored(config.mirror / "s3", patterns, [], where))


def _mirrored(root: Path, patterns: Sequence[str], exclude: Sequence[str], where: str) -> list[SourceFile]:
    if not root.is_dir():
        raise UserError("the mirror has no such folder", where=f"{where}: {root}", fix="Copy the source there.")
    names: set[str] = set()
    for start in {static_prefix(pattern) for pattern in patterns}:
        for folder, _, members in os.walk(root / start):
            names.update((Path(folder) / member).relative_to(root).as_posix() for member in members)
    return [mirrored_file(root, name, where) for name in select(sorted(names), patterns, exclude, where)]


def mirrored_file(root: Path, name: str, where: str) -> SourceFile:
    """The listing entry of a file in the mirror; raises UserError when it is missing."""
    path = inside(root, name, where)
    if not path.is_file():
        raise UserError("is missing from the mirror", where=f"{where}: {path}", fix="Copy it there.")
    size = path.stat().st_size
    return SourceFile(name, str(path), size, f"size:{size}")


def fetch(file: SourceFile, where: str) -> Path:
    """The local path of a listed file; raises UserError when it is gone or has another size than when listed."""
    path = Path(file.url)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=f"{where}: {path}") from None
    if size != file.size:
        raise UserError(
            f"has {size} bytes, but had {file.size} when it was listed", where=f"{where}: {path}", fix="Build again."
        )
    return path
