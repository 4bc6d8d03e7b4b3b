"""What a recipe needs before anything is fetched, from recipe and catalogue alone; servers are asked only for sizes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.acquire import Listing
from corpus.base.errors import UserError
from corpus.catalogue.load import find_source, stand_ins
from corpus.catalogue.models import Source
from corpus.documents.formats import format_of
from corpus.documents.sampling import PACKED, SPREAD, planned_bytes, read_bytes, sample_units, window
from corpus.documents.units import WHOLE, Piece
from corpus.recipe.model import Recipe
from corpus.recipe.published import published_counts
from corpus.recipe.shares import draws, exact_shares, token_limit

STORED_BYTES_PER_TOKEN = 1.4
"""Bytes of a compressed MDS shard per token, measured with Llama 3's ids: from 1.05 (LaTeX, code) to 1.4 (prose)."""


@dataclass(frozen=True)
class SourceEstimate:
    """What one mixture entry needs. `estimated` names the figures that are ours and not published."""

    source: str
    title: str
    weight_asked: float
    weight: float
    tokens_available: int | None
    tokens_drawn: int
    epochs: float | None
    max_epochs: float | None
    used: float
    """Share of the source that is fetched and tokenised: 1, or less under --max-tokens."""
    download_bytes: int | None
    store_bytes: int | None
    text_bytes: int | None
    licence: str
    redistributable: bool
    gate: str | None
    stand_ins: list[str]
    estimated: list[str]
    limit: int | None = None
    """Ids that a scaled-down build takes of the source; None when it takes all."""
    problem: str | None = None
    """Why it cannot be read now; only known with --online."""

    @property
    def too_often(self) -> bool:
        """Whether the phase repeats the source beyond its max_epochs."""
        return self.epochs is not None and self.max_epochs is not None and self.epochs > self.max_epochs


@dataclass(frozen=True)
class Estimate:
    """What a recipe needs; sizes in bytes, rates in MB (1e6 bytes) per second."""

    recipe: str
    tokens: int
    steps: int
    weight_sum: float
    rate: float
    rate_note: str
    bandwidth: float
    replaced: dict[str, str]
    """Source -> the stand-in that --stand-ins put in its place."""
    sources: dict[str, SourceEstimate]

    def total(self, field: str) -> tuple[int, bool]:
        """Sum of a size over all sources, and whether it misses sources of unknown size."""
        values = [getattr(source, field) for source in self.sources.values()]
        return sum(value or 0 for value in values), any(value is None for value in values)

    @property
    def tokenise_hours(self) -> float:
        """Hours to tokenise the text of the sources of known size."""
        return self.total("text_bytes")[0] / self.rate / 3.6e9

    @property
    def download_hours(self) -> float:
        """Hours to download the sources of known size."""
        return self.total("download_bytes")[0] / self.bandwidth / 3.6e9


def make_estimate(
    recipe: Recipe, *, rate: float, bandwidth: float, rate_note: str = "as given",
    max_tokens: int | None = None, replaced: dict[str, str] | None = None,
) -> Estimate:  # fmt: skip
    """Estimate a recipe; raises UserError when it names unknown sources or repeats one beyond its max_epochs."""
    per_step = recipe.training.global_batch * recipe.seq_len
    tokens = recipe.phase_tokens(max_tokens)
    weights = {name: entry.weight for name, entry in recipe.mixture.items()}
    shares, drawn = exact_shares(weights), draws(weights, tokens // recipe.seq_len)
    sources = {}
    for name, entry in recipe.mixture.items():
        source = find_source(entry.source, recipe.sources)
        needs = _source_estimate(
            recipe, entry.source, source, weight=float(shares[name]), asked=entry.weight,
            drawn=drawn[name] * recipe.seq_len, max_epochs=entry.max_epochs,
            limit=None if max_tokens is None else token_limit(drawn[name], recipe.seq_len),
        )  # fmt: skip
        # On a figure of ours this only warns; the build, which counts, refuses.
        if needs.too_often and needs.epochs and entry.max_epochs and "tokens_available" not in needs.estimated:
            raise UserError(
                f"the phase would repeat '{name}' {needs.epochs:.2f} times, more than max_epochs {entry.max_epochs:g}",
                where=f"recipe '{recipe.name}': key 'mixture.{name}.max_epochs'",
                fix="Lower its weight or the phase's tokens, add data, or raise max_epochs.",
            )
        sources[name] = needs
    return Estimate(
        recipe=recipe.name,
        tokens=tokens,
        steps=tokens // per_step,
        weight_sum=round(recipe.weight_sum(), 6),
        rate=rate,
        rate_note=rate_note,
        bandwidth=bandwidth,
        replaced=replaced or {},
        sources=sources,
    )


def _source_estimate(
    recipe: Recipe, name: str, source: Source, *, weight: float, asked: float, drawn: int, max_epochs: float | None,
    limit: int | None,
) -> SourceEstimate:  # fmt: skip
    estimated = []
    _, tokens, _ = published_counts(source, recipe.phase)
    if tokens is None and source.estimated_tokens is not None:
        tokens = source.estimated_tokens
        estimated.append("tokens_available")
    download = next((entry.bytes for entry in source.published if entry.bytes is not None), None)
    if source.origin.kind in ("embedded", "files"):
        download = 0
    elif download is None and tokens is not None:
        download = int(tokens * source.approx_bytes_per_token * (PACKED if _packed(source) else 1.0))
        estimated.append("download_bytes")
    used = min(1.0, drawn / tokens) if limit is not None and tokens else 1.0
    if limit is not None and download:
        least = _sample_bytes(source, limit)
        download = download if least is None else min(download, least)
        if "download_bytes" not in estimated:
            estimated.append("download_bytes")
    text = None if tokens is None else int(tokens * source.approx_bytes_per_token * used)
    return SourceEstimate(
        source=name,
        title=source.title,
        weight_asked=asked,
        weight=weight,
        tokens_available=tokens,
        tokens_drawn=drawn,
        epochs=drawn / tokens if tokens else None,
        max_epochs=max_epochs,
        used=used,
        download_bytes=download,
        store_bytes=None if tokens is None else int(tokens * used * STORED_BYTES_PER_TOKEN),
        text_bytes=text,
        licence=source.licence,
        redistributable=source.redistributable,
        gate=source.gate,
        stand_ins=stand_ins(name),
        estimated=estimated,
        limit=limit,
    )


def _sample_bytes(source: Source, limit: int) -> int | None:
    """Bytes that a sample of a source of many large files fetches; None where it fetches all.

    Only the servers tell the sizes of files: --online counts those.
    """
    if source.prepare is not None or source.origin.kind not in ("hub", "urls"):
        return None
    name = "file.gz" if _packed(source) else "file"
    ahead = window(-(-limit // SPREAD), name, source.format, source.approx_bytes_per_token)
    part = read_bytes(Piece(name, 1 << 59, WHOLE), 1 << 60, source.format, ahead)
    return None if part is None else SPREAD * part


def _packed(source: Source) -> bool:
    """Whether the upstream files are compressed."""
    if source.format == "parquet":
        return True
    origin = source.origin
    if origin.kind == "hub":
        names = origin.files
    elif origin.kind == "urls":
        names = origin.urls
    else:
        names = origin.paths if origin.kind in ("s3", "files") else []
    return any(name.endswith((".gz", ".zst", ".bz2", ".xz", ".parquet")) for name in names)


def add_online(estimate: Estimate, recipe: Recipe, base_dir: Path) -> Estimate:
    """The estimate with sizes and access as the servers tell them now."""
    from corpus.catalogue.check import check_source

    sources = {}
    for name, entry in estimate.sources.items():
        source = find_source(entry.source, recipe.sources)
        result = check_source(source, base_dir)
        size = result.bytes or entry.download_bytes
        if entry.limit is not None and result.listing is not None:
            size = _listed_bytes(source, result.listing, recipe, entry.limit)
        problem = f"{result.problem}. {result.fix or ''}".strip() if result.problem else None
        left = [field for field in entry.estimated if field != "download_bytes" or not result.bytes]
        sources[name] = dataclasses.replace(entry, download_bytes=size, problem=problem, estimated=left)
    return dataclasses.replace(estimate, sources=sources)


def _listed_bytes(source: Source, listing: Listing, recipe: Recipe, limit: int) -> int:
    """Bytes that the build will fetch to take ``limit`` ids of a source."""
    if source.origin.kind in ("embedded", "files"):
        return 0
    per_token = source.approx_bytes_per_token
    file_format = format_of([file.name for file in listing.files], source.given_format(), f"source '{source.title}'")
    sample = sample_units(
        listing.files, file_format, unit_bytes=recipe.unit_bytes, seed=recipe.seed, limit=limit,
        row=recipe.seq_len + 1, bytes_per_token=per_token,
    )  # fmt: skip
    return planned_bytes(sample, listing.files)


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """The estimate with its totals, for --json."""
    data = dataclasses.asdict(estimate)
    data["totals"] = {
        "download_bytes": estimate.total("download_bytes")[0],
        "store_bytes": estimate.total("store_bytes")[0],
        "text_bytes": estimate.total("text_bytes")[0],
        "sources_of_unknown_size": [name for name, source in estimate.sources.items() if source.text_bytes is None],
        "tokenise_hours": round(estimate.tokenise_hours, 3),
        "download_hours": round(estimate.download_hours, 3),
    }
    return data
