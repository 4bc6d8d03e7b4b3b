"""The `prepare` of a catalogue entry: how files are joined into JSON lines before they are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from corpus.acquire.origins import FilesOrigin, HubOrigin, UrlsOrigin
from corpus.base.config import Strict


class AlignedLines(Strict):
    """Join line n of a records file with line n of a labels file (PIQA)."""

    kind: Literal["aligned_lines"] = "aligned_lines"
    records: str
    """Glob for the JSON-lines files among the origin's files, in sorted order."""
    labels: str
    """Glob for the text files with one label per line, in sorted order."""
    key: str = "label"
    """Field the label is written to."""


class Lookup(Strict):
    """A dataset that questions are looked up in, by split and row number."""

    origin: Annotated[HubOrigin | UrlsOrigin | FilesOrigin, Field(discriminator="kind")]
    """Where its files are."""
    format: Literal["jsonl", "parquet"]
    """Of its files."""
    splits: dict[str, str]
    """Split name -> glob for its files; rows are numbered from 0 through the files in sorted order."""
    question: str
    """Field with the question; a row where it is empty counts as not found."""
    sections: dict[str, str] = {}
    """Further fields appended to the question -> heading written above each; a list of {input, output} is examples."""


class RecoveredQuestions(Strict):
    """Put the question back into records that name it by dataset, split and index (OpenCodeReasoning-2)."""

    kind: Literal["recovered_questions"] = "recovered_questions"
    question: str = "question"
    """Field the question is written to; a record whose question is not found keeps what stood there."""
    lookups: dict[str, Lookup]
    """By the value of the record's `dataset`."""


Prepare = Annotated[AlignedLines | RecoveredQuestions, Field(discriminator="kind")]
