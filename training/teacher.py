"""Write a teacher's top-k log-probabilities beside the streams: `python -m training.teacher RECIPE --top-k K`."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from corpus.base.errors import UserError, command
from corpus.base.numbers import count
from corpus.recipe.model import load_recipe
from corpus.records.manifest import find_build, load_manifest
from training.distillation import writer
from training.distillation.identity import check_vocabulary, identify, teacher_folder
from training.run.overrides import override


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.teacher`; under torchrun the processes share the shards out among them."""
    args = _arguments(argv)
    if args.batch < 1 or (args.top_k is not None and args.top_k < 1):
        raise UserError("must be at least 1", where="--batch" if args.batch < 1 else "--top-k")
    recipe = load_recipe(args.recipe)
    build = find_build(args.data, recipe.name, args.max_tokens)
    manifest = load_manifest(build)
    # As the run does: a build made with --max-tokens holds a shorter phase than the recipe asks for.
    recipe = override(recipe.model_copy(update={"tokens": manifest.tokens}), args.overrides, str(args.recipe))
    settings = recipe.training.distillation
    name = args.teacher or (settings.teacher if settings else None)
    k = args.top_k or (settings.top_k if settings else None)
    temperature = args.temperature or (settings.temperature if settings else 1.0)
    if name is None or k is None:
        flag = "--teacher" if name is None else "--top-k"
        raise UserError("the recipe does not say it", where=flag, fix=f"Add {flag}.")
    tokenizer = args.data / manifest.tokenizer.path / "tokenizer.json"
    vocab_size = manifest.tokenizer.vocab_size
    check_vocabulary(name, teacher_folder(name, weights=False), vocab_size, tokenizer)
    if k > vocab_size:
        raise UserError(f"{k} is more than the {vocab_size} ids there are", where="--top-k")
    folder = teacher_folder(name, weights=True)
    print(f"hashing the weights of {name}", flush=True)
    tasks = writer.plan(recipe, manifest, build, identify(name, folder), k, temperature)
    writer.show(tasks)
    if not args.dry_run:
        load = functools.partial(writer.load_teacher, str(folder), vocab_size, tokenizer)
        writer.write(tasks, manifest, load, args.batch)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.teacher",
        description="Run a teacher over what a built recipe draws, and keep its k most likely tokens per position, "
        "for training with distillation.cache. The same command again goes on where it was stopped; "
        "torchrun --nproc-per-node N -m training.teacher shares the shards out to N GPUs.",
    )
    parser.add_argument("recipe", type=Path, help="the recipe's file")
    parser.add_argument("--teacher", help="hub name or local path (default: the recipe's distillation.teacher)")
    parser.add_argument("--top-k", type=int, metavar="K", help="tokens kept (default: the recipe's distillation.top_k)")
    parser.add_argument("--temperature", type=float, help="of the softmax (default: the recipe's, else 1)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the builds (default: data)")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="the trial build of N tokens")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="sequences per forward pass (default: 8)")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="as the run will have it: tokens, seed, global_batch and document_mask change what is drawn",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show what would be written, and stop")
    return parser.parse_args(argv)


if __name__ == "__main__":
    with command():
        main()
