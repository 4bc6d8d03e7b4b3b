"""Stand-ins: small files that a clone leaves where the true file was not fetched (Git LFS, git-annex)."""

from __future__ import annotations

import re

from corpus.acquire.ranges import Readable
from corpus.base.errors import UserError

LARGEST = 1024
"""A pointer has fewer bytes than this, by the specification of Git LFS."""
_LFS = re.compile(
    rb"version https?://(?:git-lfs|hawser)\.github\.com/spec/\S+\r?\n"
    rb"(?:[a-z0-9.-]+ \S+\r?\n)*oid [a-z0-9]+:[0-9a-f]+\r?\n(?:[a-z0-9.-]+ \S+\r?\n)*size [0-9]+(?:\r?\n)?"
)
_ANNEX = re.compile(rb"(?:(?:\.\.[/\\])*\.git)?[/\\]annex[/\\]objects[/\\]\S*[A-Z0-9_]+(?:-[A-Za-z][0-9]+)*--\S+\s*")
"""A pointer file, or the target of a link where links are not supported."""


def refuse_stand_in(path: Readable, name: str) -> None:
    """Raise UserError naming the file when it is a pointer: what the true file holds is unknown.

    The whole file must be one; a document that quotes a pointer is none.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST)
    if len(content) == LARGEST:
        return
    if _LFS.fullmatch(content):
        kind, command = "Git LFS", "git lfs pull"
    elif _ANNEX.fullmatch(content):
        kind, command = "git-annex", "git annex get ."
    else:
        return
    raise UserError(
        f"is a {kind} pointer, not the file it stands for",
        where=name,
        fix=f"Run `{command}` in the repository it was cloned from, then the same command again.",
    )
