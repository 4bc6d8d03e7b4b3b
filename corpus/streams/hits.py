"""What decontamination dropped from a stream, and what it shares with evaluation sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from corpus.cleaning.reasons import CONTAMINATED
from corpus.records.stream import load_stream
from corpus.streams.plan import HITS_FILE


def contaminated_documents(folder: Path) -> list[dict[str, Any]]:
    """The documents of a stream that decontamination dropped, in order: {id, hits: [{example, ngram, start}]}.

    Raises UserError when the stream does not tell of all of them.
    """
    documents: list[dict[str, Any]] = []
    record = load_stream(folder)
    for unit in record.units:
        dropped = unit.documents.dropped.get(CONTAMINATED, 0)
        file = folder / "units" / f"{unit.unit:06d}" / HITS_FILE
        lines = file.read_bytes().splitlines() if dropped and file.is_file() else []
        if len(lines) != dropped:
            raise UserError(
                f"tells of {len(lines)} of the {dropped} documents that were dropped", where=str(file),
                fix="Build the stream again to have all of them listed.",
            )  # fmt: skip
        documents += map(json.loads, lines)
    return documents
