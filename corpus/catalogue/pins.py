"""Which state of its upstream each source of the catalogue is read at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpus.acquire.hub import is_commit, resolved
from corpus.acquire.origins import HubOrigin
from corpus.catalogue.load import load_catalogue, load_evaluations
from corpus.documents.joins import input_origins


@dataclass(frozen=True)
class Pin:
    """One state of an upstream, and who reads it."""

    upstream: str
    """Repository of the hub, or how the files are reached."""
    revision: str | None
    """As the catalogue has it; None where there is nothing to pin (plain URLs)."""
    pinned: bool
    commit: str | None
    """What an unpinned revision stood for when a build in the data folder first asked."""
    first_asked: str | None
    """The day of that, YYYY-MM-DD."""
    sources: list[str]


def pins(cache: Path | None) -> list[Pin]:
    """The catalogue's upstreams, the unpinned last; ``cache``: the download folder of a data folder, if any."""
    readers: dict[tuple[str, str | None], list[str]] = {}
    for name, source in {**load_catalogue(), **load_evaluations()}.items():
        for origin in [source.origin, *(other for other, _ in input_origins(source).values())]:
            if isinstance(origin, HubOrigin):
                readers.setdefault((origin.repo, origin.revision), []).append(name)
            elif origin.kind == "urls":
                readers.setdefault(("plain URLs", None), []).append(name)
    found = []
    for (upstream, revision), names in readers.items():
        known = resolved(upstream, revision, cache) if revision is not None and cache is not None else None
        pinned = revision is not None and is_commit(revision)
        commit, day = (known["commit"], known.get("resolved")) if known is not None else (None, None)
        found.append(Pin(upstream, revision, pinned, commit, day, sorted(set(names))))
    return sorted(found, key=lambda pin: (not pin.pinned, pin.revision is None, pin.upstream))
