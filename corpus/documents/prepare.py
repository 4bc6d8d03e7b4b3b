"""The `prepare` of a catalogue entry: how files are joined into JSON lines before they are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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
    rows: dict[str, int] | None = None
    """Split name -> its number of rows when the questions were numbered; with another number, they no longer fit."""
    question: str
    """Field with the question; a row where it is empty counts as not found."""
    sections: dict[str, str] = {}
    """Further fields appended to the question -> heading written above each; a list of {input, output} is examples."""

    @model_validator(mode="after")
    def _rows_of_its_splits(self) -> Lookup:
        if unknown := sorted(set(self.rows or ()) - set(self.splits)):
            raise ValueError(f"rows names '{unknown[0]}', which is no split")
        return self

    @model_serializer(mode="wrap")
    def _without_rows_unknown(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The keys of streams joined without counts stay.
        return {key: value for key, value in serialise(self).items() if key != "rows" or value is not None}


class RecoveredQuestions(Strict):
    """Put the question back into records that name it by dataset, split and index (OpenCodeReasoning-2)."""

    kind: Literal["recovered_questions"] = "recovered_questions"
    question: str = "question"
    """Field the question is written to; a record whose question is not found keeps what stood there."""
    lookups: dict[str, Lookup]
    """By the value of the record's `dataset`."""


Prepare = Annotated[AlignedLines | RecoveredQuestions, Field(discriminator="kind")]
