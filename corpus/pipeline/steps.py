"""The work on one unit, as datatrove steps: read -> clean -> tokenise -> pack -> write shards and the unit's record."""

from __future__ import annotations

from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from corpus.pipeline.cleaning import Clean
from corpus.pipeline.comparing import Collect, Compare
from corpus.pipeline.job import Purpose
from corpus.pipeline.reading import ReadRecords
from corpus.pipeline.tally import Tally
from corpus.pipeline.tokenising import Tokenize
from corpus.pipeline.writing import WriteShards


def unit_pipeline(jobs: Path, purpose: Purpose | None) -> list[PipelineStep]:
    """The steps for one job; rank r of the executor works on job r of the jobs file.

    With a ``purpose`` it is a comparison's: the look at a unit's documents, or a job of a later stage.
    """
    tally = Tally()
    if purpose is None:
        return [ReadRecords(jobs, tally), Clean(jobs, tally), Tokenize(jobs, tally), WriteShards(jobs, tally)]
    if not purpose.looks_at_documents:
        return [Compare(jobs, tally, purpose)]
    return [ReadRecords(jobs, tally), Clean(jobs, tally, purpose.step), Collect(jobs, tally, purpose.step)]
