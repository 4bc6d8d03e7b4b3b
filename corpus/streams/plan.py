"""What a worker needs to know to make any unit of a stream, as one JSON file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

from corpus.acquire import AcquireConfig, Listing
from corpus.acquire.identity import file_identities, key_revision
from corpus.acquire.origins import Origin
from corpus.base.config import Strict, parse
from corpus.base.files import atomic_write, canonical_json, fingerprint, read_json, write_json
from corpus.catalogue.models import Source
from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.comparisons.stages import Comparison
from corpus.cleaning.step import ComparisonStep
from corpus.cleaning.steps import CleaningStep
from corpus.documents.sampling import Sample, sample_units
from corpus.documents.units import WHOLE, Unit, plan_units
from corpus.records.stream import STREAM_FILE, Boundary, Tokenizer

STREAM_FORMAT = 1
"""Raised whenever the code changes a stream's bytes; part of every stream's key."""
UNIT_FILE = "unit.json"
TAIL_FILE = "tail.bin"
SHOWN_FILE = "documents.json"
SHOWN_UNITS, SHOWN_DOCUMENTS, SHOWN_CHARS = 4, 3, 2000
"""Documents kept as text for the report: of the first units, the first few, cut short."""
HITS_FILE = "contamination.jsonl"
PLACES_FILE = "places.zst"
"""Of a unit: which document each id is from (places.py)."""
"""In a unit's folder, when decontamination removed some of its documents: what each shares with evaluation sets."""
KEY_FILE = "key.json"
"""In a stream's folder: what its key was made of."""
DROPS_FILE = "drops.json"
"""In the folder of a unit without a sample: where the first record dropped for each reason is."""
CAP_FILE = "cap.json"
"""In a sampled stream whose units held less than expected: how many ids each gives."""
TOKENIZER_JSON = "tokenizer.json"


class StreamPlan(Strict):
    """One stream to make: where its records are, what is done to them, and into which folder it goes."""

    source_name: str
    source: Source
    """As it is read: a source joined beforehand has become local JSON lines."""
    origin: Origin
    """As the catalogue has it, for the record."""
    listing: Listing
    tokenizer: Tokenizer
    engine: str
    seq_len: int
    boundary: Boundary
    cleaning: list[CleaningStep]
    """All steps of the recipe, paths resolved; `steps` has those that apply to this entry."""
    entry: str
    """Name of the mixture entry."""
    comparison_folders: dict[int, Path] = {}
    """Folder of each comparison's findings, by its place in `cleaning`."""
    compared_streams: dict[int, list[tuple[str, int, str]]] = {}
    """(source, its number of units, its key) of all streams a comparison looks at, in order."""
    keep_removed: bool = False
    malformed: Literal["drop", "fail"]
    unit_bytes: int
    token_limit: int | None
    """Stop once this many ids are packed (a scaled-down build); null reads the whole source."""
    seed: int
    data: Path
    """The data folder that holds streams, tokenizers and downloads."""
    acquire: AcquireConfig

    @functools.cached_property
    def key_inputs(self) -> dict[str, Any]:
        """Everything that determines the stream's bytes, and nothing else."""
        return {
            "format": STREAM_FORMAT,
            "records": self.source.model_dump(mode="json", include={"format", "adapter", "prepare"}),
            "revision": key_revision(self.source.origin, self.listing),
            "files": file_identities(self.source.origin, self.listing),
            "tokenizer": self.tokenizer.sha256,
            "boundary": [self.boundary, self.tokenizer.bos_id, self.tokenizer.eos_id],
            "seq_len": self.seq_len,
            "dtype": self.dtype,
            "cleaning": [step.key() for _, step in self.steps],
            # What a comparison drops here depends on all it compares with, in their order.
            "compared_with": {str(step): [m[2] for m in members] for step, members in self.compared_streams.items()},
            "malformed": self.malformed,
            "unit_bytes": self.unit_bytes,
            "token_limit": None
            if self.sample is None
            else [self.token_limit, self.seed, self.sample.cap, self.sample.unit_bytes],
            **self.reading,
        }

    @functools.cached_property
    def fields(self) -> frozenset[str] | None:
        """Paths of the record fields that its units look at; None stands for any."""
        needs = [self.source.adapter.needs(), *(step.needs() for _, step in self.steps)]
        return None if None in needs else frozenset[str]().union(*(need or () for need in needs))

    @property
    def reading(self) -> dict[str, int]:
        """A part of the key for streams to which the second way of reading may give other records.

        Those are of parquet whose row groups are shared by units, or of which cleaning made every column be read; and
        of any format where a field path has dots.
        """
        parquet = self.source.format == "parquet" and (
            bool(self.steps) or any(piece.end != WHOLE for unit in self.units for piece in unit.pieces)
        )
        return {"reading": 2} if parquet or any("." in path for path in self.fields or ()) else {}

    def key_parts(self) -> dict[str, Any]:
        """key_inputs for people to compare: of the list of files only a hash."""
        return self.key_inputs | {"files": fingerprint(self.key_inputs["files"])}

    @functools.cached_property
    def key(self) -> str:
        """Fingerprint of key_inputs."""
        return fingerprint(self.key_inputs)

    @property
    def dtype(self) -> Literal["uint16", "uint32"]:
        """The smallest type that holds every id."""
        return "uint16" if self.tokenizer.vocab_size <= 1 << 16 else "uint32"

    @property
    def folder(self) -> Path:
        """Where the stream lies."""
        return self.data / "streams" / f"{self.source_name}-{self.key[:12]}"

    @property
    def tokenizer_json(self) -> Path:
        """The tokenizer file."""
        return self.data / self.tokenizer.path / TOKENIZER_JSON

    @functools.cached_property
    def units(self) -> list[Unit]:
        """The stream's units in order."""
        if self.sample is not None:
            return self.sample.units
        return plan_units(list(self.listing.files), self.source.format, self.unit_bytes)

    @functools.cached_property
    def file_sizes(self) -> dict[str, int | None]:
        """Bytes of each file as stored; None where they are unknown."""
        return {file.name: file.size for file in self.listing.files}

    @functools.cached_property
    def sample(self) -> Sample | None:
        """Under a token limit, what is read of the source."""
        if self.token_limit is None:
            return None
        return sample_units(
            self.listing.files, self.source.format, unit_bytes=self.unit_bytes, seed=self.seed,
            limit=self.token_limit, row=self.seq_len + 1, bytes_per_token=self.source.approx_bytes_per_token,
        )  # fmt: skip

    @functools.cached_property
    def steps(self) -> list[tuple[int, CleaningStep]]:
        """(place in the recipe, step) of the cleaning steps that apply to this entry."""
        return [
            (place, step) for place, step in enumerate(self.cleaning) if not step.sources or self.entry in step.sources
        ]

    def compared_units(self, step: int) -> list[UnitRef]:
        """All units a comparison looks at, in the order that decides which of two equal documents stays."""
        return [UnitRef(source, unit) for source, units, _ in self.compared_streams[step] for unit in range(units)]

    def comparison(self, place: int) -> tuple[Comparison, ComparisonStep]:
        """The work of the comparison at this place of the recipe's cleaning, and its settings."""
        step = self.cleaning[place]
        assert isinstance(step, ComparisonStep)
        units = self.compared_units(place)
        return Comparison(self.comparison_folders[place], units, step.bands, step.joins), step

    def removed_file(self, unit: Unit) -> Path:
        """Where a unit's removed documents are kept."""
        return self.data / "removed" / self.folder.name / f"{unit.folder}.jsonl.zst"

    def unit_folder(self, unit: Unit) -> Path:
        """Final place of a unit's shards and record."""
        return self.folder / "units" / unit.folder

    def unit_cap(self) -> int:
        """Ids that a sample takes of each unit: as planned, or more where the source turned out to hold fewer."""
        assert self.sample is not None
        raised = self.folder / CAP_FILE
        return int(read_json(raised)["ids"]) if raised.is_file() else self.sample.cap

    def raise_unit_cap(self) -> None:
        """Let a sample take four times as much of each unit."""
        write_json(self.folder / CAP_FILE, {"ids": 4 * self.unit_cap()})

    def is_complete(self) -> bool:
        """Whether the stream's record, which is written last, is there."""
        return (self.folder / STREAM_FILE).is_file()

    def save(self, folder: Path) -> Path:
        """Write the plan where workers read it."""
        path = folder / f"{self.folder.name}.plan.json"
        # Whole at every moment: workers of another build may be reading the same plan.
        with atomic_write(path) as stream:
            stream.write(canonical_json(self.model_dump(mode="json")))
        return path


@functools.lru_cache(maxsize=8)
def load_plan(path: Path) -> StreamPlan:
    """Read a plan; kept for the life of a worker process."""
    return parse(StreamPlan, read_json(path), str(path))
