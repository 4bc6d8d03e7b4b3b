"""Ids -> samples in shards, and the unit's record."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.base.files import discard_dir, publish_dir
from corpus.documents.units import Unit
from corpus.pipeline.attempts import work_folder
from corpus.pipeline.unit_step import UnitStep, unit_work
from corpus.records.stream import Documents, Tokens, UnitRecord
from corpus.streams.made import is_made
from corpus.streams.mds import ShardWriter
from corpus.streams.places import packed_places
from corpus.streams.plan import DROPS_FILE, HITS_FILE, PLACES_FILE, SHOWN_FILE, TAIL_FILE, UNIT_FILE, StreamPlan
from corpus.tokenization.pack import Packer


class WriteShards(UnitStep):
    """Packs ids into samples and writes them as MDS shards beside the unit's record; publishes all or nothing."""

    type = "💽 - WRITER"
    name = "MDS shards of a unit"

    def run(self, data: Iterator[NDArray[np.uint32]], rank: int = 0, world_size: int = 1) -> None:
        """Consumes the pipeline. A failure is left as a file for the parent to report, so that other units go on."""
        plan, unit = self.job(rank)
        # Another node may have a process of the same number on the same unit, when one was taken for lost.
        beside = (
            work_folder(plan.folder, self.jobs.parent.parent) / f"{unit.folder}-{secrets.token_hex(4)}-{os.getpid()}"
        )
        with unit_work(self, plan, unit, rank):
            try:
                beside.mkdir(parents=True, exist_ok=True)
                self._write(plan, unit, data, beside)
                final = plan.unit_folder(unit)
                if final.is_dir() and not is_made(plan, unit):
                    discard_dir(final)  # it lost its record since, or a sample needs more of it
                publish_dir(beside, final)
            finally:
                # Before a failure is reported: on a full disk the report needs the room.
                shutil.rmtree(beside, ignore_errors=True)

    def _write(self, plan: StreamPlan, unit: Unit, data: Iterator[NDArray[np.uint32]], folder: Path) -> None:
        tally, packer = self.tally, Packer(plan.seq_len + 1, plan.dtype)
        with ShardWriter(folder, plan.seq_len, plan.dtype) as writer:
            for ids in data:
                rows = packer.add(ids)
                writer.write(rows)
                tally.samples += len(rows)
        (folder / TAIL_FILE).write_bytes(packer.tail.astype("<u4").tobytes())
        record = UnitRecord(
            unit=unit.index,
            pieces=[(piece.file, piece.start, piece.end) for piece in unit.pieces],
            documents=Documents(
                read=tally.read, kept=tally.kept,
                dropped=dict(sorted(tally.dropped.items())), changed=dict(sorted(tally.changed.items())),
            ),
            text_bytes=tally.text_bytes,
            tokens=Tokens(
                text=tally.text_tokens, boundary=tally.boundary_tokens,
                written=tally.samples * packer.row, remainder=len(packer.tail),
            ),
            samples=tally.samples,
            lengths={str(bits): count for bits, count in sorted(tally.lengths.items())},
            complete=tally.ended,
        )  # fmt: skip
        assert record.documents.read == record.documents.kept + sum(record.documents.dropped.values())
        assert record.tokens.text + record.tokens.boundary == record.tokens.written + record.tokens.remainder
        (folder / SHOWN_FILE).write_text(json.dumps(tally.shown))
        (folder / PLACES_FILE).write_bytes(packed_places([piece.file for piece in unit.pieces], tally.places))
        if tally.first_drops and not tally.samples:
            (folder / DROPS_FILE).write_text(json.dumps(tally.first_drops))
        if tally.hits:
            (folder / HITS_FILE).write_text("".join(json.dumps(document) + "\n" for document in tally.hits))
        (folder / UNIT_FILE).write_text(json.dumps(record.model_dump(mode="json")))
