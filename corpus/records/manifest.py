"""What a build produced: the record of each stream, and the manifest of a recipe's mix of streams."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from corpus.base.config import Strict, parse
from corpus.base.errors import UserError
from corpus.base.files import fingerprint, read_json, write_json
from corpus.base.numbers import short_count
from corpus.records.stream import DESCRIBED, Documents, EvaluationSet, Sampled, Tokenizer

MANIFEST_FILE = "manifest.json"


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
    evaluations: list[EvaluationSet] = []
    """What decontamination could see, file by file of its evaluation sets; not part of the fingerprint."""
    sampled: Sampled | None = None
    """What was read of the source, where --max-tokens let it be a part; not part of the fingerprint."""
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
        """SHA-256 over everything but `built` and what describes how the streams were made."""
        sources = {"__all__": {"evaluations", "sampled"}}
        described: Any = {"built": True, "sources": sources, "tokenizer": set(DESCRIBED)}
        return fingerprint(self.model_dump(mode="json", exclude=described))

    def write(self, folder: Path) -> Path:
        """Write manifest.json (with its fingerprint) into ``folder``."""
        path = folder / MANIFEST_FILE
        write_json(path, {**self.model_dump(mode="json"), "fingerprint": self.fingerprint})
        return path


def is_written(manifest: Manifest, folder: Path) -> bool:
    """Whether ``folder`` holds this very manifest, whenever and however it was built."""
    try:
        return load_manifest(folder).fingerprint == manifest.fingerprint
    except UserError:
        return False


def build_name(recipe: str, max_tokens: int | None) -> str:
    """The folder of a build in the data folder: a trial of ``max_tokens`` has one of its own."""
    return recipe if max_tokens is None else f"{recipe}@{short_count(max_tokens)}"


def find_build(data: Path, recipe: str, max_tokens: int | None = None) -> Path:
    """The folder of a recipe's build, or of its only trial where it was not built whole; it may not be there.

    Raises UserError when there are several trials to choose from.
    """
    whole = data / build_name(recipe, max_tokens)
    if max_tokens is not None or (whole / MANIFEST_FILE).is_file():
        return whole
    trials = sorted(path.parent for path in data.glob(f"{glob.escape(recipe)}@*/{MANIFEST_FILE}"))
    if len(trials) > 1:
        sizes = ", ".join(trial.name.rpartition("@")[2] for trial in trials)
        raise UserError(
            f"'{recipe}' was not built whole, and there are {len(trials)} trials of it",
            where=str(data),
            fix=f"Choose one with --max-tokens ({sizes}).",
        )
    return trials[0] if trials else whole


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
