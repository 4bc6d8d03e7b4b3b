"""A unit's files -> its records as documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datatrove.data import Document

from corpus.acquire import fetch, release
from corpus.base.errors import UserError
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.pipeline.unit_step import UnitStep
from corpus.streams.plan import StreamPlan


class ReadRecords(UnitStep):
    """Yields a unit's records as documents; counts what cannot be read or has no text."""

    type = "📖 - READER"
    name = "records of a unit"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """See datatrove's PipelineStep."""
        plan, unit = self.job(rank)
        tally, text_of = self.tally, plan.source.adapter.function()
        files = {file.name: file for file in plan.listing.files}
        for piece in unit.pieces:
            file = files[piece.file]
            path = fetch(plan.source, plan.listing, file, plan.acquire)
            try:
                records = read_piece(path, file.name, plan.source.format, piece.start, piece.end, plan.fields)
                for place, record in records:
                    tally.read += 1
                    try:
                        if isinstance(record, BadRecord):
                            raise record
                        text = text_of(record)
                        if not text:
                            raise BadRecord("empty")
                    except BadRecord as bad:
                        self._count_bad(plan, f"{file.name}:{place}", bad)
                        continue
                    yield Document(text=text, id=f"{file.name}:{place}", metadata=record)
                    if tally.full:
                        return
            finally:
                release(plan.source, file, plan.acquire)

    def _count_bad(self, plan: StreamPlan, where: str, bad: BadRecord) -> None:
        if plan.malformed == "fail" and bad.reason != "empty":
            raise UserError(
                f"record is malformed ({bad.reason})",
                where=f"{plan.source_name}: {where}",
                fix="Mend the file, or set 'malformed: drop' in the recipe to drop and count such records.",
            ) from None
        self.tally.dropped[bad.reason] += 1
