"""`python -m corpus.plan RECIPE`: what a recipe needs before anything is fetched, from recipe and catalogue alone."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError, command

if TYPE_CHECKING:
    from corpus.catalogue.models import Source
    from corpus.recipe.model import Recipe

STORED_BYTES_PER_TOKEN = 1.4
"""Bytes of a compressed MDS shard per token, measured with Llama 3's ids: from 1.05 (LaTeX, code) to 1.4 (prose)."""
PACKED = 0.4
"""Size of compressed upstream files (parquet, gzip, zstd) as a share of their text, where no size is published."""
DEFAULT_BANDWIDTH = 100.0
"""MB/s of download, when --bandwidth is not given."""


@dataclass(frozen=True)
class SourcePlan:
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
    problem: str | None = None
    """Why it cannot be read now; only known with --online."""

    @property
    def too_often(self) -> bool:
        """Whether the phase repeats the source beyond its max_epochs."""
        return self.epochs is not None and self.max_epochs is not None and self.epochs > self.max_epochs


@dataclass(frozen=True)
class Plan:
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
    sources: dict[str, SourcePlan]

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


def make_plan(
    recipe: Recipe, *, rate: float, rate_note: str = "as given", bandwidth: float = DEFAULT_BANDWIDTH,
    max_tokens: int | None = None, replaced: dict[str, str] | None = None,
) -> Plan:  # fmt: skip
    """Plan a recipe; raises UserError when it names unknown sources or repeats one beyond its max_epochs."""
    from corpus.catalogue.load import find_source
    from corpus.recipe.shares import draws, exact_shares

    per_step = recipe.training.global_batch * recipe.seq_len
    tokens = recipe.tokens if max_tokens is None else min(recipe.tokens, -(-max_tokens // per_step) * per_step)
    weights = {name: entry.weight for name, entry in recipe.mixture.items()}
    shares, drawn = exact_shares(weights), draws(weights, tokens // recipe.seq_len)
    sources = {}
    for name, entry in recipe.mixture.items():
        source = find_source(entry.source, recipe.sources)
        plan = _source_plan(
            recipe, entry.source, source, weight=float(shares[name]), asked=entry.weight,
            drawn=drawn[name] * recipe.seq_len, max_epochs=entry.max_epochs, scaled=max_tokens is not None,
        )  # fmt: skip
        # On an estimate of ours the plan only warns; the build, which counts, refuses.
        if plan.too_often and plan.epochs and entry.max_epochs and "tokens_available" not in plan.estimated:
            raise UserError(
                f"the phase would repeat '{name}' {plan.epochs:.2f} times, more than max_epochs {entry.max_epochs:g}",
                where=f"recipe '{recipe.name}': key 'mixture.{name}.max_epochs'",
                fix="Lower its weight or the phase's tokens, add data, or raise max_epochs.",
            )
        sources[name] = plan
    return Plan(
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


def _source_plan(
    recipe: Recipe, name: str, source: Source, *, weight: float, asked: float, drawn: int, max_epochs: float | None,
    scaled: bool,
) -> SourcePlan:  # fmt: skip
    from corpus.catalogue.load import stand_ins
    from corpus.recipe.published import published_counts

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
    used = min(1.0, drawn / tokens) if scaled and tokens else 1.0
    text = None if tokens is None else int(tokens * source.approx_bytes_per_token * used)
    return SourcePlan(
        source=name,
        title=source.title,
        weight_asked=asked,
        weight=weight,
        tokens_available=tokens,
        tokens_drawn=drawn,
        epochs=drawn / tokens if tokens else None,
        max_epochs=max_epochs,
        used=used,
        download_bytes=None if download is None else int(download * used),
        store_bytes=None if tokens is None else int(tokens * used * STORED_BYTES_PER_TOKEN),
        text_bytes=text,
        licence=source.licence,
        redistributable=source.redistributable,
        gate=source.gate,
        stand_ins=stand_ins(name),
        estimated=estimated,
    )


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
    return any(name.endswith((".gz", ".zst", ".bz2", ".xz")) for name in names)


def measured_rate() -> tuple[float, str]:
    """MB/s at which this machine tokenises, all cores, and how that was measured (a few seconds)."""
    import itertools
    import tempfile
    import time

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from corpus.acquire.embedded import records
    from corpus.tokenization.engine import choose_engine, load_engine

    texts, size = [], 0
    for record in records("stdlib_code"):
        texts.append(record["text"])
        size += len(record["text"].encode())
        if size > 8_000_000:
            break
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(itertools.islice(texts, 60), trainer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        model.save(str(path))
        name, _ = choose_engine(path, None)
        engine = load_engine(path, name)
        engine.encode_batch(texts[:20])
        started = time.perf_counter()
        for first in range(0, len(texts), 64):
            engine.encode_batch(texts[first : first + 64])
        seconds = time.perf_counter() - started
    cores = os.cpu_count() or 1
    return size / seconds / 1e6 * cores, f"measured with {name} and a small tokenizer on one core, times {cores} cores"


def add_online(plan: Plan, recipe: Recipe, base_dir: Path) -> Plan:
    """The plan with sizes and access as the servers tell them now."""
    import dataclasses

    from corpus.catalogue.load import find_source
    from corpus.sources import check_source

    sources = {}
    for name, entry in plan.sources.items():
        result = check_source(find_source(entry.source, recipe.sources), base_dir)
        size = int(result.bytes * entry.used) if result.bytes else entry.download_bytes
        problem = f"{result.problem}. {result.fix or ''}".strip() if result.problem else None
        left = [field for field in entry.estimated if field != "download_bytes" or not result.bytes]
        sources[name] = dataclasses.replace(entry, download_bytes=size, problem=problem, estimated=left)
    return dataclasses.replace(plan, sources=sources)


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan with its totals, for --json."""
    data = asdict(plan)
    data["totals"] = {
        "download_bytes": plan.total("download_bytes")[0],
        "store_bytes": plan.total("store_bytes")[0],
        "text_bytes": plan.total("text_bytes")[0],
        "sources_of_unknown_size": [name for name, source in plan.sources.items() if source.text_bytes is None],
        "tokenise_hours": round(plan.tokenise_hours, 3),
        "download_hours": round(plan.download_hours, 3),
    }
    return data


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m corpus.plan",
        description="Show what a recipe needs: tokens and repetition per source, bytes, hours, gates and licences. "
        "Needs no network; --online asks the servers for exact sizes and access.",
    )
    parser.add_argument("recipes", type=Path, nargs="*", metavar="RECIPE", help="such as recipes/r1_phase2.yaml")
    parser.add_argument("--max-tokens", type=_count, metavar="N", help="plan a scaled-down build of N tokens")
    parser.add_argument("--stand-ins", action="store_true", help="replace gated sources by ungated stand-ins")
    parser.add_argument("--rate", type=_positive, metavar="MB/S", help="text tokenised a second (default: measured)")
    parser.add_argument("--bandwidth", type=_positive, default=DEFAULT_BANDWIDTH, metavar="MB/S", help="download speed")
    parser.add_argument("--online", action="store_true", help="ask the servers for sizes and access")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--write-references", type=Path, metavar="DIR",
        help="write each recipe's published reference to DIR (default recipes: all of recipes/ but the sample)",
    )  # fmt: skip
    return parser.parse_args(argv)


def _count(text: str) -> int:
    value = int(float(text))
    if value < 1:
        raise ValueError(text)
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def write_references(recipes: list[Path], folder: Path) -> list[Path]:
    """Write the published reference of each recipe (of all documented ones when none is named)."""
    from corpus.recipe.model import load_recipe
    from corpus.recipe.published import published_manifest, write_published

    paths = recipes or sorted(Path("recipes").glob("*.yaml"))
    if not paths:
        raise UserError("there is no recipes folder here", where="--write-references", fix="Run it in the repository.")
    loaded = [load_recipe(path) for path in paths]
    return [write_published(published_manifest(recipe), folder) for recipe in loaded if recipe.family != "sample"]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        args = _arguments(argv)
        if args.write_references is not None:
            for path in write_references(args.recipes, args.write_references):
                print(path)
            return
        if not args.recipes:
            raise UserError("name a recipe file", fix="`ls recipes` lists them.")
        from corpus.recipe.model import load_recipe
        from corpus.recipe.stand_ins import with_stand_ins

        recipes = [load_recipe(path) for path in args.recipes]
        rate, note = (args.rate, "as given") if args.rate else measured_rate()
        plans = []
        for path, recipe in zip(args.recipes, recipes, strict=True):
            recipe, replaced = with_stand_ins(recipe) if args.stand_ins else (recipe, {})
            plan = make_plan(
                recipe, rate=rate, rate_note=note, bandwidth=args.bandwidth,
                max_tokens=args.max_tokens, replaced=replaced,
            )  # fmt: skip
            plans.append(add_online(plan, recipe, path.resolve().parent) if args.online else plan)
        if args.json:
            shown = [plan_json(plan) for plan in plans]
            print(json.dumps(shown[0] if len(shown) == 1 else shown, indent=2, ensure_ascii=False))
        else:
            from corpus.report.estimate import show_plan

            for plan in plans:
                show_plan(plan)


if __name__ == "__main__":
    main()
