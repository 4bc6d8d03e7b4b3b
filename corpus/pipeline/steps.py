"""The work on one unit, as datatrove steps: read -> clean -> tokenise -> pack -> write shards and the unit's record."""

from __future__ import annotations

from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from corpus.pipeline.cleaning import Clean
from corpus.pipeline.collecting import Collect
from corpus.pipeline.reading import ReadRecords
from corpus.pipeline.tally import Tally
from corpus.pipeline.tokenising import Tokenize
from corpus.pipeline.writing import WriteShards


def unit_pipeline(jobs: Path, collect: int | None) -> list[PipelineStep]:
    """The steps for one unit; rank r of the executor works on job r of the jobs file.

    With ``collect`` it is the pass in which that comparison of the recipe's cleaning looks at all documents.
    """
    tally = Tally()
    if collect is not None:
        return [ReadRecords(jobs, tally), Clean(jobs, tally, collect), Collect(jobs, tally, collect)]
    return [ReadRecords(jobs, tally), Clean(jobs, tally), Tokenize(jobs, tally), WriteShards(jobs, tally)]
