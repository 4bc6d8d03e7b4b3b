"""What reading needs to know of a source: its format, what its files are joined with, what a record looks like."""

from __future__ import annotations

from corpus.acquire.origins import Upstream
from corpus.documents.adapters import Adapter
from corpus.documents.formats import Format
from corpus.documents.prepare import Prepare


class Readable(Upstream):
    """A source as far as its records and their text go; the catalogue says more of it."""

    format: Format = "jsonl"
    """Record format; where it is not given, the files' endings say it (.jsonl, .ndjson, .json, .parquet, .txt).
    Endings .gz, .zst, .bz2 and .xz are decompressed on the way. text: one document per file."""
    prepare: Prepare | None = None
    """Files joined into JSON lines before they are read; hashed into the stream key."""
    adapter: Adapter
    """How a record becomes text; hashed into the stream key."""

    def given_format(self) -> Format | None:
        """The format that was written down; None where it was left to the names of the files."""
        return self.format if "format" in self.model_fields_set else None
