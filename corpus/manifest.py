"""What a build produced: the record of each stream, and the manifest of a recipe's mix of streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from corpus.config import Strict, parse
from corpus.errors import UserError
from corpus.files import fingerprint, write_json

STREAM_FILE = "stream.json"
MANIFEST_FILE = "manifest.json"


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
    documents: Documents
    text_bytes: int
    tokens: Tokens
    samples: int
    shards: int
    shard_bytes: int
    """Stored (compressed) bytes of all shards."""
    lengths: dict[str, int]
    index_sha256: str
    """Of index.json, which holds the hash of every shard."""
    units: list[UnitRecord]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what the key determines; names and terms may be corrected without making other data of it."""
        described = {"title", "licence", "licence_url", "redistributable", "origin"}
        facts = self.model_dump(mode="json", exclude=described)
        facts["tokenizer"] = {k: v for k, v in facts["tokenizer"].items() if k not in ("name", "path")}
        return fingerprint(facts)


class ManifestSource(Strict):
    """One mixture entry of a built recipe."""

    source: str
    stream: str
    """The stream's folder, relative to the manifest's."""
    stream_fingerprint: str
    revision: str
    licence: str
    redistributable: bool
    documents: Documents
    tokens: int
    """Ids stored in the stream."""
    samples: int
    text_bytes: int
    weight_asked: float
    """As written in the recipe."""
    weight: float
    """Normalised share of the phase's tokens."""
    samples_drawn: int
    """Samples the phase draws from this source."""
    tokens_drawn: int
    """Target tokens drawn: samples_drawn * seq_len."""
    epochs: float
    """samples_drawn / samples."""


class Manifest(Strict):
    """`manifest.json` of a build directory."""

    kind: Literal["manifest"] = "manifest"
    format: int = 1
    recipe: str
    family: str
    phase: str
    recipe_sha256: str
    """Fingerprint of the resolved recipe."""
    seq_len: int
    boundary: Literal["bos", "eos", "both"]
    document_mask: bool
    tokenizer: Tokenizer
    tokens: int
    """Target tokens of the phase (the recipe's, or --max-tokens rounded up to whole steps)."""
    steps: int
    global_batch: int
    seed: int
    weight_sum: float
    """Sum of the weights as written, before normalising."""
    sources: dict[str, ManifestSource] = Field(min_length=1)
    built: dict[str, Any] = {}
    """Versions, duration and machine facts of the build; not part of the fingerprint."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything but `built`."""
        return fingerprint(self.model_dump(mode="json", exclude={"built"}))

    def write(self, folder: Path) -> Path:
        """Write manifest.json (with its fingerprint) into ``folder``."""
        path = folder / MANIFEST_FILE
        write_json(path, {**self.model_dump(mode="json"), "fingerprint": self.fingerprint})
        return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises UserError naming the file."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"is not readable JSON: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise UserError("is not a JSON object", where=str(path))
    return data


def load_manifest(path: Path) -> Manifest:
    """Read a build's manifest (the file or its folder) and check its fingerprint."""
    if path.is_dir():
        path = path / MANIFEST_FILE
    data = read_json(path)
    stored = data.pop("fingerprint", None)
    manifest = parse(Manifest, data, str(path))
    if stored != manifest.fingerprint:
        raise UserError("its content does not match its fingerprint", where=str(path), fix="Build the recipe again.")
    return manifest


def load_stream(folder: Path) -> StreamRecord:
    """Read a stream's record; raises UserError when the stream is absent or incomplete."""
    return parse(StreamRecord, read_json(folder / STREAM_FILE), str(folder / STREAM_FILE))
