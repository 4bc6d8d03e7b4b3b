"""`python -m corpus.plan RECIPE`: what a recipe needs before anything is fetched, from recipe and catalogue alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from corpus.base.errors import UserError, command
from corpus.base.numbers import count

DEFAULT_BANDWIDTH = 100.0
"""MB/s of download, when --bandwidth is not given."""


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        args = _arguments(argv)
        if args.write_references is not None:
            from corpus.recipe.published import write_references

            for path in write_references(args.recipes, args.write_references):
                print(path)
        else:
            estimate(args)


def estimate(args: argparse.Namespace) -> None:
    """Estimate each recipe and print what it needs."""
    from corpus.recipe.estimate import add_online, estimate_json, make_estimate
    from corpus.recipe.model import load_recipe
    from corpus.recipe.rate import measured_rate
    from corpus.recipe.stand_ins import with_stand_ins

    if not args.recipes:
        raise UserError("name a recipe file", fix="`ls recipes` lists them.")
    recipes = [load_recipe(path) for path in args.recipes]
    rate, note = (args.rate, "as given") if args.rate else measured_rate()
    estimates = []
    for path, recipe in zip(args.recipes, recipes, strict=True):
        recipe, replaced = with_stand_ins(recipe) if args.stand_ins else (recipe, {})
        needs = make_estimate(
            recipe, rate=rate, rate_note=note, bandwidth=args.bandwidth,
            max_tokens=args.max_tokens, replaced=replaced,
        )  # fmt: skip
        estimates.append(add_online(needs, recipe, path.resolve().parent) if args.online else needs)
    if args.json:
        shown = [estimate_json(needs) for needs in estimates]
        print(json.dumps(shown[0] if len(shown) == 1 else shown, indent=2, ensure_ascii=False))
    else:
        from corpus.report.estimate import show_estimate

        for needs in estimates:
            show_estimate(needs)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m corpus.plan",
        description="Show what a recipe needs: tokens and repetition per source, bytes, hours, gates and licences. "
        "Needs no network; --online asks the servers for exact sizes and access.",
    )
    parser.add_argument("recipes", type=Path, nargs="*", metavar="RECIPE", help="such as recipes/r1_phase2.yaml")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="plan a scaled-down build of N tokens")
    parser.add_argument("--stand-ins", action="store_true", help="replace gated sources by ungated stand-ins")
    parser.add_argument("--rate", type=_positive, metavar="MB/S", help="text tokenised a second (default: measured)")
    parser.add_argument("--bandwidth", type=_positive, default=DEFAULT_BANDWIDTH, metavar="MB/S", help="download speed")
    parser.add_argument("--online", action="store_true", help="ask the servers for sizes and access")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--write-references", type=Path, metavar="DIR",
        help="write each recipe's published reference to DIR (default recipes: all of recipes/ but the sample)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.max_tokens is not None and args.max_tokens < 1:
        raise UserError("must be positive", where="--max-tokens")
    return args


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


if __name__ == "__main__":
    main()
