"""File names from outside: which are safe to create here, and which a glob means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from corpus.base.errors import UserError

MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 200
"""Room below the 255 bytes of a file system for the endings of files being written."""
_WILD = re.compile(r"[*?\[]")


def safe_name(name: str, where: str) -> str:
    """``name`` itself when it is a plain relative posix path; raises UserError when it could leave a folder."""
    parts = name.split("/")
    if not name or name.startswith("/"):
        problem = "is empty or absolute"
    elif any(part in ("", ".", "..") for part in parts):
        problem = "has an empty, '.' or '..' part"
    elif "\\" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        problem = "has a backslash or a control character"
    elif any(0xD800 <= ord(char) < 0xE000 for char in name):
        problem = "is not valid Unicode"
    elif len(name.encode()) > MAX_NAME_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        problem = f"is longer than {MAX_NAME_BYTES} bytes, or has a part longer than {MAX_PART_BYTES}"
    else:
        return name
    shown = ascii(name[:120])
    raise UserError(f"refusing the file name {shown}: it {problem}", where=where, fix="Do not trust this source.")


def inside(root: Path, name: str, where: str) -> Path:
    """The path of ``name`` below ``root``; raises UserError when a symlink on the way leads out of ``root``."""
    path = root / safe_name(name, where)
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"refusing {name!a}: a symlink leads out of {root}", where=where)
    return path


def static_prefix(pattern: str) -> str:
    """The folders of a glob that hold no wildcard, without a trailing slash ('' when the first part has one)."""
    parts = pattern.split("/")
    fixed: list[str] = []
    for part in parts[:-1]:
        if _WILD.search(part):
            break
        fixed.append(part)
    return "/".join(fixed)


def is_glob(pattern: str) -> bool:
    """Whether the pattern can stand for more than the path it spells."""
    return bool(_WILD.search(pattern))


def glob_regex(pattern: str) -> re.Pattern[str]:
    """The regular expression of a glob: `*`, `?` and `[...]` stay inside a folder, `**` crosses folders."""
    # A class must be closed and not hold a slash, otherwise its bracket stands for itself.
    tokens = re.compile(
        r"(?P<deep>(?:\*\*/)+)|(?P<all>\*{2,})|(?P<star>\*)|(?P<one>\?)|\[(?P<set>!?\]?[^\]/]*)\]|(?P<text>.)"
    )
    out: list[str] = []
    for token in tokens.finditer(pattern):
        if token["deep"]:
            out.append("(?:[^/]+/)*")
        elif token["all"]:
            out.append(".*")
        elif token["star"]:
            out.append("[^/]*")
        elif token["one"]:
            out.append("[^/]")
        elif token["set"]:
            chars = token["set"]
            negated, chars = chars.startswith("!"), chars.removeprefix("!")
            body = chars.replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").replace("^", r"\^")
            out.append(f"(?!/)[{'^' if negated else ''}{body}]")
        else:
            out.append(re.escape(token["text"]))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise UserError(f"not a valid glob: {error}", where=f"pattern {pattern!r}") from None


def select(names: Sequence[str], patterns: Sequence[str], exclude: Sequence[str], where: str) -> list[str]:
    """The names that a pattern matches and no exclude does, sorted; raises UserError for a pattern matching nothing."""
    chosen: set[str] = set()
    for pattern in patterns:
        regex = glob_regex(pattern)
        matched = {name for name in names if regex.fullmatch(name)}
        if not matched:
            raise UserError(f"no file matches {pattern!r}", where=where, fix=_what_there_is(names))
        chosen |= matched
    for pattern in exclude:
        regex = glob_regex(pattern)
        chosen = {name for name in chosen if not regex.fullmatch(name)}
    if not chosen:
        raise UserError("`exclude` leaves no file", where=where)
    return sorted(chosen)


def _what_there_is(names: Sequence[str]) -> str:
    folders = sorted({name.rsplit("/", 1)[0] + "/" if "/" in name else name for name in names})
    return (
        f"There is: {', '.join(folders[:8])}{' ...' if len(folders) > 8 else ''}" if folders else "It holds no files."
    )
