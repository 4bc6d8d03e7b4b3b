"""What a phase asks of a cluster, worked out without its data: `python -m training.simulate recipes/r1_phase1.yaml`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from corpus.base.errors import command
from corpus.base.numbers import count
from corpus.recipe.model import Recipe, load_recipe
from training.data.elastic import legal_world_sizes
from training.data.simulation import SHARD_BYTES, TOKENS_PER_SECOND, ZIP_RATIO, Simulation, simulate


def report(result: Simulation, recipe: Recipe, cache: int | None) -> str:
    """The result as lines for people; `cache` is the bytes of cache a node has."""
    from corpus.base.numbers import file_size

    legal = legal_world_sizes(recipe.training.global_batch, recipe.training.canonical_nodes, result.gpus)
    where = f"{result.recipe} on {result.nodes} nodes x {result.gpus} GPUs"
    shard, stored = file_size(SHARD_BYTES), file_size(SHARD_BYTES * ZIP_RATIO)
    memory, first = file_size(result.peak_bytes), file_size(result.resume_fetch_bytes)
    lines = {
        where: f"{result.hours:,.3g} h for {result.steps:,} steps",
        "virtual epochs": f"{result.virtual_epochs:,} of up to {result.steps_per_virtual_epoch:,} batches",
        "shards": f"{result.shards:,} of up to {shard}, {stored} stored (an estimate)",
        "opening the streams, each rank": f"{result.open_seconds:.1f} s",
        "arranging a virtual epoch, each node": f"{result.arrange_seconds:.2f} s; the process peaks at {memory}",
        "fetched by each node": f"{file_size(result.fetch_bytes_per_hour)} per hour",
        "cache needed by each node": f"{file_size(result.cache_bytes)} (--cache-limit at least); "
        f"without a limit it grows to {file_size(result.whole_cache_bytes)}",
        f"resuming at step {result.resume_step:,}": f"{result.resume_seconds:.1f} s; with an empty cache each node "
        f"then fetches {first} before its first batch",
        "world sizes that can go on with it": ", ".join(map(str, legal)),
    }
    width = max(map(len, lines))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
    if result.assumed_sizes:
        text += f"\nno published size, taken to be seen once: {', '.join(result.assumed_sizes)}"
    if cache is not None and cache < result.cache_bytes:
        text += (
            f"\nwarning: a cache of {file_size(cache)} is too small: shards would be fetched again and again. "
            "Raise it, lower training.virtual_epoch_samples, or use more nodes."
        )
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive whole number")
    return int(text)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.simulate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="recipe file")
    parser.add_argument("--nodes", type=_positive, default=1, help="machines (default 1)")
    parser.add_argument("--gpus", type=_positive, default=8, help="processes per machine (default 8)")
    parser.add_argument(
        "--tokens-per-second", type=_positive, default=TOKENS_PER_SECOND, help="per GPU (default %(default)s)"
    )
    parser.add_argument("--cache", type=count, metavar="SIZE", help="cache of each node, such as 500gb: is it enough?")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args(argv)
    with command():
        recipe = load_recipe(args.recipe)
        result = simulate(recipe, args.nodes, args.gpus, args.tokens_per_second)
        fields: dict[str, Any] = asdict(result)
        print(json.dumps(fields, indent=2) if args.json else report(result, recipe, args.cache))


if __name__ == "__main__":
    main(sys.argv[1:])
