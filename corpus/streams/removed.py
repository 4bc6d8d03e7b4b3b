"""What cleaning removed from a stream, where the build kept it (--keep-removed)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard

from corpus.base.errors import UserError


def removed_documents(folder: Path, count: int, reason: str | None = None) -> list[dict[str, Any]]:
    """The first ``count`` removed documents of a stream, {id, reason, text}, of one reason or of all.

    Raises UserError when the build kept none.
    """
    kept = folder.parent.parent / "removed" / folder.name
    if not kept.is_dir():
        raise UserError(
            "its removed documents were not kept", where=f"stream {folder.name}",
            fix="Delete its folder under streams, and build again with --keep-removed.",
        )  # fmt: skip
    found = (document for document in _all(kept) if reason is None or document["reason"] == reason)
    return list(islice(found, count))


def _all(kept: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(kept.glob("*.jsonl.zst")):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            yield from map(json.loads, io.TextIOWrapper(stream, encoding="utf-8"))
