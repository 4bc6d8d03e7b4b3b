"""What the catalogue says of a source: where its files are, what a record looks like, and on what terms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from corpus.adapters import Adapter
from corpus.config import Strict


class HubOrigin(Strict):
    """Files of a Hugging Face dataset repository at a pinned revision, read raw (never through a loader script)."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    revision: str
    """Commit hash (or, where none is known to us, a branch: then the build records the commit it resolved to)."""
    files: list[str] = Field(min_length=1)
    """Glob patterns inside the repository; ** crosses folders."""
    exclude: list[str] = []


class UrlsOrigin(Strict):
    """Plain HTTPS files: an explicit list, or a file (URL) listing one URL per line."""

    kind: Literal["urls"] = "urls"
    urls: list[str] = []
    """URLs; a numeric range such as {0000..0048} stands for each number in it, with the zeros kept."""
    url_list: str | None = None
    """URL of a text file with one URL per line."""
    match: str | None = None
    """Keep only the URLs of `url_list` that match this glob."""


class S3Origin(Strict):
    """Objects of an S3-compatible store."""

    kind: Literal["s3"] = "s3"
    paths: list[str] = Field(min_length=1)
    """s3:// globs."""


class FilesOrigin(Strict):
    """Local files; relative patterns are relative to the recipe's folder."""

    kind: Literal["files"] = "files"
    paths: list[str] = Field(min_length=1)
    """Glob patterns."""


class EmbeddedOrigin(Strict):
    """Text that every Python installation has; written out as JSON lines before it is read."""

    kind: Literal["embedded"] = "embedded"
    name: Literal["stdlib_code", "reference_docs", "docstring_qa"]


Origin = Annotated[HubOrigin | UrlsOrigin | S3Origin | FilesOrigin | EmbeddedOrigin, Field(discriminator="kind")]


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
    format: Literal["jsonl", "parquet"]
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


class Published(Strict):
    """Counts the papers or cards print for this source."""

    table: Literal["pretraining", "midtraining", "posttraining", "upstream"] = "upstream"
    """Which table of the MobileLLM papers prints the numbers; upstream is the dataset's own card or a count of it."""
    rows: int | None = None
    tokens: int | None = None
    bytes: int | None = None
    """Download size in bytes, where known."""
    reference: str
    """Where the numbers are printed."""


class Source(Strict):
    """An upstream dataset at a pinned revision, and how its records become training text."""

    title: str
    """Name for people."""
    origin: Origin
    format: Literal["jsonl", "parquet", "text"] = "jsonl"
    """Record format; .gz, .zst, .bz2 and .xz endings are decompressed on the way. text: one document per file."""
    prepare: Prepare | None = None
    """Files joined into JSON lines before they are read; hashed into the stream key."""
    adapter: Adapter
    """How a record becomes text; hashed into the stream key."""
    licence: str
    """SPDX identifier where there is one, else the licence's name."""
    licence_url: str | None = None
    gate: str | None = None
    """URL where access must be requested, for gated repositories."""
    redistributable: bool = True
    """False: streams made from this source must not be published."""
    published: list[Published] = []
    notes: list[str] = []
    """Anomalies and choices that apply, in our words."""
    homepage: str | None = None
    stand_in_for: str | None = None
    """Set on a source that can replace another one; used only when a recipe or --stand-ins asks for it."""
    approx_bytes_per_token: float = Field(default=4.0, gt=0)
    """Bytes of text per token, used for estimates before anything is tokenised."""
    estimated_tokens: int | None = None
    """Our own estimate of the tokens, for plans only, where nobody has published a count."""
