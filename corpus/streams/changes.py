"""Why a stream is made anew: what differs from the latest one of the same source that is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from corpus.base.errors import UserError
from corpus.base.files import read_json
from corpus.records.stream import STREAM_FILE
from corpus.streams.plan import KEY_FILE, StreamPlan

NAMES = {
    "format": "the program's stream format", "records": "the adapter", "revision": "the source's files",
    "files": "the source's files", "tokenizer": "the tokenizer", "boundary": "the boundary", "seq_len": "seq_len",
    "dtype": "the size of ids", "cleaning": "the cleaning steps", "compared_with": "what it is compared with",
    "malformed": "malformed", "unit_bytes": "unit_bytes", "token_limit": "--max-tokens",
    "reading": "how files are read",
}  # fmt: skip
"""Parts of a key as people know them."""


def tell_changes(plans: Mapping[str, StreamPlan], say: Callable[[str], None]) -> None:
    """Say of streams that are to be made though their sources have one, what differs; once for all alike."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, plan in plans.items():
        if plan.is_complete() or (plan.folder / "units").is_dir():
            continue
        before = _latest(plan)
        if before is not None:
            alike.setdefault(differences(before, plan.key_parts()), []).append(name)
    for what, names in alike.items():
        if what:
            say(f"made anew, as {_listed(what)} changed since the last build: {', '.join(names)}")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Parts of two keys that differ, as people know them."""
    changed = (part for part in NAMES if before.get(part) != now.get(part))
    return tuple(dict.fromkeys(NAMES[part] for part in changed))


def _latest(plan: StreamPlan) -> dict[str, Any] | None:
    """The parts of the key of the latest complete stream of a plan's source, a trial's for a trial; None without."""
    found: list[tuple[float, dict[str, Any]]] = []
    for record in (plan.data / "streams").glob(f"{plan.source_name}-*/{STREAM_FILE}"):
        if record.parent.name.rpartition("-")[0] != plan.source_name:
            continue
        with contextlib.suppress(UserError, OSError):
            parts = read_json(record.parent / KEY_FILE)
            if (parts.get("token_limit") is None) == (plan.token_limit is None):
                found.append((record.stat().st_mtime, parts))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
