"""What the document steps before a comparison decided on a unit, kept so that later passes need not run them again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from corpus.base.errors import UserError
from corpus.base.files import atomic_write
from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.reasons import CONTAMINATED
from corpus.pipeline.unit_step import Numbered

BatchStep = Callable[["list[Numbered]"], "list[str | None]"]
"""For each document of a batch: None to keep it, or the reason to drop it."""


class Verdicts:
    """By the steps' places in the recipe: which documents (by ordinal) each dropped, and which it rewrote."""

    def __init__(self) -> None:
        self.dropped: dict[int, dict[int, str]] = defaultdict(dict)
        """Step -> document -> reason."""
        self.changed: dict[int, set[int]] = defaultdict(set)
        """Step -> documents kept with another text."""
        self.hits: dict[int, Any] = {}
        """Contaminated document -> what it shares with evaluation sets."""

    def save(self, folder: Path, ref: UnitRef) -> None:
        """Keep them in the folder of the comparison that comes next."""
        import zstandard

        data = {
            "dropped": {str(step): [[*item] for item in found.items()] for step, found in self.dropped.items()},
            "changed": {str(step): sorted(found) for step, found in self.changed.items()},
            "hits": [[*item] for item in self.hits.items()],
        }
        with atomic_write(_file(folder, ref)) as stream:
            stream.write(zstandard.compress(orjson.dumps(data)))

    def replayed(self, step: int, function: Callable[[], BatchStep]) -> BatchStep:
        """What the step did, out of these verdicts; ``function`` is asked for only when it rewrote a document."""
        dropped, changed = self.dropped.get(step, {}), self.changed.get(step, set())
        made: list[BatchStep] = []

        def replay(batch: list[Numbered]) -> list[str | None]:
            rewritten = [entry for entry in batch if entry.ordinal in changed]
            if rewritten:
                if not made:
                    made.append(function())
                made[0](rewritten)
            reasons = [dropped.get(entry.ordinal) for entry in batch]
            for entry, reason in zip(batch, reasons, strict=True):
                if reason == CONTAMINATED:
                    entry.document.metadata["contamination"] = self.hits[entry.ordinal]
            return reasons

        return replay


def load_verdicts(folder: Path, ref: UnitRef) -> Verdicts | None:
    """The verdicts kept in a comparison's folder; None when there are none, and the steps have to be run."""
    import zstandard

    path = _file(folder, ref)
    try:
        data = orjson.loads(zstandard.decompress(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (zstandard.ZstdError, orjson.JSONDecodeError) as error:
        raise UserError(f"is damaged ({error})", where=str(path), fix="Delete it and run the build again.") from None
    verdicts = Verdicts()
    verdicts.dropped.update((int(step), dict(found)) for step, found in data["dropped"].items())
    verdicts.changed.update((int(step), set(found)) for step, found in data["changed"].items())
    verdicts.hits.update(data["hits"])
    return verdicts


def _file(folder: Path, ref: UnitRef) -> Path:
    return ref.file(folder, "verdicts.zst")
