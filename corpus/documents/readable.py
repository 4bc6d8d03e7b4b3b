"""What reading needs to know of a source: its format, what its files are joined with, what a record looks like."""

from __future__ import annotations

from typing import Literal

from corpus.acquire.origins import Upstream
from corpus.documents.adapters import Adapter
from corpus.documents.prepare import Prepare


class Readable(Upstream):
    """A source as far as its records and their text go; the catalogue says more of it."""

    format: Literal["jsonl", "parquet", "text"] = "jsonl"
    """Record format; .gz, .zst, .bz2 and .xz endings are decompressed on the way. text: one document per file."""
    prepare: Prepare | None = None
    """Files joined into JSON lines before they are read; hashed into the stream key."""
    adapter: Adapter
    """How a record becomes text; hashed into the stream key."""
