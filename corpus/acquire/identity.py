"""What keys and records say of a source's files: the same for the same bytes, wherever they were read from."""

from __future__ import annotations

import re
from typing import Any

from corpus.acquire.models import Listing, listing_of
from corpus.acquire.origins import HubOrigin, Origin


def file_identities(origin: Origin, listing: Listing) -> list[list[str | int | None]]:
    """[name, size, content or address] of each file, for keys.

    A hub's pinned commit fixes its files, so they are the same from the hub and from a mirror of it. Elsewhere a digest
    identifies a file wherever it lies, and without one its address must.
    """
    fixed = _pinned(origin, listing)
    return [[file.name, file.size, None if fixed else file.digest or file.url] for file in listing.files]


def key_revision(origin: Origin, listing: Listing) -> str:
    """The listing's revision as keys hold it: a pinned commit, or a hash over the files' names, sizes and contents.

    Where a branch stands says nothing of the files asked for: an edit of a README moves it, too.
    """
    if isinstance(origin, HubOrigin) and not _pinned(origin, listing):
        return listing_of(listing.files).revision
    return listing.revision


def _pinned(origin: Origin, listing: Listing) -> bool:
    if not isinstance(origin, HubOrigin) or not re.fullmatch(r"[0-9a-f]{7,40}", origin.revision):
        return False
    return listing.revision.startswith(origin.revision)


def recorded_origin(origin: Origin, listing: Listing) -> dict[str, Any]:
    """The origin as a stream's record tells it: no paths of this machine, no secrets of URLs, the commits read."""
    # A local path says nothing on another machine, and would differ between two.
    told = origin.model_dump(mode="json", exclude={"paths"} if origin.kind == "files" else None)
    if listing.commits:
        told["commits"] = dict(listing.commits)
    if listing.unchecked is not None:
        told["unchecked_mirror"] = listing.unchecked
    return told
