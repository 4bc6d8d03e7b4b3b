"""What is written down about one stream: its documents, tokens, tokenizer and units."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from corpus.base.collector import collector_off
from corpus.base.config import Strict, parse
from corpus.base.files import fingerprint, read_json

Boundary = Literal["bos", "eos", "both"]
"""Ids put around each document."""


STREAM_FILE = "stream.json"


class Documents(Strict):
    """Where the documents went: ``read == kept + sum(dropped.values())``."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = {}
    """Documents dropped, by reason."""
    changed: dict[str, int] = {}
    """Kept documents whose text a cleaning step rewrote, by step."""


class Tokens(Strict):
    """Where the tokens went: ``text + boundary == written + remainder``."""

    text: int = 0
    """Tokens of kept documents."""
    boundary: int = 0
    """BOS and EOS ids added by the packer."""
    written: int = 0
    """Ids stored, samples * (seq_len + 1)."""
    remainder: int = 0
    """Ids left over at the very end, less than one sample."""


DESCRIBED = frozenset({"commit", "loses"})
"""What a tokenizer's record says of it beyond what its sha256 stands for; part of no fingerprint."""


class Tokenizer(Strict):
    """The tokenizer a stream was made with."""

    name: str
    sha256: str
    """Of its tokenizer.json."""
    vocab_size: int
    """Largest id + 1, special tokens included."""
    bos_id: int | None = None
    eos_id: int | None = None
    path: str
    """Folder of tokenizer.json, relative to the data folder."""
    commit: str | None = None
    """Of the Hugging Face repository it was taken from; null for any other, and in records made before it was kept."""
    loses: str | None = None
    """A text of which it does not keep everything, where the recipe allows that; null for one that keeps all text."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Records without these two keep the form, and so the fingerprint, that they had before there were any.
        absent = {name for name in DESCRIBED if getattr(self, name) is None}
        return {name: value for name, value in handler(self).items() if name not in absent}


class EvaluationSet(Strict):
    """What decontamination can see of one file of evaluation examples."""

    name: str
    """Of the file; starts with the name of the set where the catalogue has one."""
    examples: int
    detectable: int
    """Examples with a text long enough to be found."""
    undetectable: int


class UnitRecord(Strict):
    """What one unit contributed."""

    unit: int
    pieces: list[tuple[str, int, int]]
    """(file, first byte, end byte); end -1 is the whole file."""
    documents: Documents
    text_bytes: int
    """UTF-8 bytes of kept text."""
    tokens: Tokens
    """remainder: ids carried to the tail."""
    samples: int
    lengths: dict[str, int]
    """Histogram of document lengths: {bit length of the token count: documents}."""
    complete: bool = True
    """False when reading stopped at the build's token limit."""


class Sampled(Strict):
    """What a build with a token limit read of a source."""

    files: int
    of_files: int
    folders: int
    """Folders that the files read lie in; often configurations or languages."""
    of_folders: int
    units: int
    """Places in the files that reading began at."""
    of_units: int


class StreamRecord(Strict):
    """`stream.json`: written last, so that its presence means the stream is complete."""

    kind: Literal["stream"] = "stream"
    format: int = 1
    key: str
    """Fingerprint of everything that determines the stream's bytes."""
    source: str
    title: str
    revision: str
    origin: dict[str, Any]
    licence: str
    licence_url: str | None = None
    redistributable: bool
    seq_len: int
    boundary: Literal["bos", "eos", "both"]
    dtype: Literal["uint16", "uint32"]
    tokenizer: Tokenizer
    cleaning: list[dict[str, Any]]
    files: int
    file_bytes: int | None
    token_limit: int | None = None
    """Set when the build stopped reading the source at this many tokens."""
    sampled: Sampled | None = None
    """What was read of the source then."""
    documents: Documents
    text_bytes: int
    tokens: Tokens
    samples: int
    shards: int
    shard_bytes: int
    """Stored (compressed) bytes of all shards."""
    lengths: dict[str, int]
    evaluations: list[EvaluationSet] = []
    """What decontamination could see, file by file of its evaluation sets."""
    index_sha256: str
    """Of index.json, which holds the hash of every shard."""
    units: list[UnitRecord]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what the key determines; names and terms may be corrected without making other data of it."""
        described = {"title", "licence", "licence_url", "redistributable", "origin", "evaluations", "sampled"}
        with collector_off():
            facts = self.model_dump(mode="json", exclude=described)
            facts["tokenizer"] = {k: v for k, v in facts["tokenizer"].items() if k not in {"name", "path"} | DESCRIBED}
            return fingerprint(facts)


def load_stream(folder: Path) -> StreamRecord:
    """Read a stream's record; raises UserError when the stream is absent or incomplete."""
    with collector_off():  # tens of thousands of units, none of them garbage
        return parse(StreamRecord, read_json(folder / STREAM_FILE), str(folder / STREAM_FILE))
