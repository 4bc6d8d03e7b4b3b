"""A unit's files -> its records as documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datatrove.data import Document

from corpus.acquire import SourceFile, fetch, release
from corpus.acquire.ranges import RemoteFile, can_be_read_in_part, open_part
from corpus.base.errors import UserError
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.documents.sampling import read_bytes, window
from corpus.documents.units import Piece
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
            if tally.full:
                return
            file = files[piece.file]
            path = self._part(plan, piece, file) or fetch(plan.source, plan.listing, file, plan.acquire)
            try:
                records = read_piece(path, file.name, plan.source.format, piece.start, piece.end, plan.fields)
                for place, record in records:
                    if tally.full:
                        return
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
            finally:
                release(plan.source, file, plan.acquire)
        tally.ended = True

    def _part(self, plan: StreamPlan, piece: Piece, file: SourceFile) -> RemoteFile | None:
        """The file to be read in ranges, where a sample needs a little of it; None where all of it is fetched."""
        # A comparison has looked at all documents, so the whole file came for it.
        if plan.sample is None or plan.compared_streams or file.name in plan.sample.whole:
            return None
        ahead = window(plan.sample.cap, file.name, plan.source.format, plan.source.approx_bytes_per_token)
        if read_bytes(piece, file.size, plan.source.format, ahead) is None:
            return None
        if not can_be_read_in_part(plan.source, plan.listing, file, plan.acquire):
            return None
        return open_part(plan.source, file, piece.start, 0 if plan.source.format == "parquet" else ahead)

    def _count_bad(self, plan: StreamPlan, where: str, bad: BadRecord) -> None:
        if plan.malformed == "fail" and bad.reason != "empty":
            raise UserError(
                f"record is malformed ({bad.reason})",
                where=f"{plan.source_name}: {where}",
                fix="Mend the file, or set 'malformed: drop' in the recipe to drop and count such records.",
            ) from None
        self.tally.drop(bad.reason, where)
