"""`python -m corpus.build RECIPE`: make the streams of a recipe's mix, and the manifest that accounts for them."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.base.errors import UserError, command, nearest
from corpus.base.numbers import count

if TYPE_CHECKING:
    from corpus.pipeline.options import Options
    from corpus.records.manifest import Manifest


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        options = parse_arguments(argv)
        try:
            build(options)
        except OSError as error:
            from corpus.base.files import full_disk, is_full

            if is_full(error):
                raise full_disk(options.out) from None
            raise


def parse_arguments(argv: list[str] | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m corpus.build",
        description="Turn a recipe's documented mix into tokenised MDS streams and a token-count manifest. "
        "A build that was stopped goes on where it was when the same command is run again.",
    )
    parser.add_argument("recipe", type=Path, help="recipe file, such as recipes/sample.yaml")
    parser.add_argument("--out", default="data", help="data folder, or s3://bucket/prefix (default: data)")
    parser.add_argument("--workers", type=int, help="units worked on at once (default: one per core of this machine)")
    parser.add_argument("--max-tokens", type=count, metavar="N",
                        help="scaled-down build: a phase of N tokens, in a folder of its own (RECIPE@N)")  # fmt: skip
    parser.add_argument("--only", action="append", default=[], metavar="SOURCE", help="build only this mixture entry")
    parser.add_argument("--engine", choices=["gigatoken", "tokenizers"], help="force a tokeniser engine")
    parser.add_argument("--mirror", type=Path, metavar="DIR", help="read downloads from a local mirror of the hub")
    parser.add_argument("--offline", action="store_true", help="use only what was listed and downloaded before")
    parser.add_argument("--refresh", action="store_true", help="ask again where branches stand and what lists hold")
    parser.add_argument("--cache-limit", type=count, metavar="BYTES", help="most bytes of downloads kept at once")
    parser.add_argument("--delete-downloads", action="store_true", help="delete each download once it is processed")
    parser.add_argument("--stand-ins", action="store_true", help="use ungated stand-ins for gated sources")
    parser.add_argument("--keep-removed", action="store_true", help="keep what cleaning removes, under OUT/removed")
    parser.add_argument("--dry-run", action="store_true",
                        help="show what would be built, and stop (still fetches what planning needs)")  # fmt: skip
    beyond = parser.add_argument_group("beyond one machine")
    beyond.add_argument("--executor", choices=["local", "slurm", "ray"], default="local",
                        help="where units are made (default: local)")  # fmt: skip
    beyond.add_argument("--executor-options", type=Path, metavar="FILE",
                        help="YAML: partition, time, address, cpus_per_task ...")  # fmt: skip
    beyond.add_argument("--work", type=Path, metavar="DIR", help="with --out s3://: where streams are made before")
    beyond.add_argument("--private-store", action="store_true",
                        help="with --out s3://: vouch that a store that cannot be checked is private")  # fmt: skip
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise UserError("must be at least 1", where="--workers")
    if args.max_tokens is not None and args.max_tokens < 1:
        raise UserError("must be positive", where="--max-tokens")
    from corpus.pipeline.options import Options, store_and_folder

    store, out = store_and_folder(args.out, args.work)
    cluster = None
    if args.executor != "local" or args.executor_options:
        from corpus.pipeline.cluster_options import cluster_options

        cluster = cluster_options(args.executor, args.executor_options)
    workers = args.workers or (cluster.workers if cluster else os.cpu_count() or 1)
    return Options(
        args.recipe, out, workers, args.max_tokens, args.only, args.engine, args.dry_run,
        args.mirror, args.cache_limit, not args.delete_downloads, args.stand_ins,
        args.keep_removed,
        args.offline, cluster, store, args.private_store, args.refresh,
    )  # fmt: skip


def build(options: Options) -> Manifest | None:
    """Run a build; returns the manifest, or None for a dry run or a partial (`--only`) build."""
    from corpus.acquire.origins import public_text
    from corpus.base.files import atomic_write
    from corpus.pipeline.comparisons import with_comparisons
    from corpus.pipeline.display import say
    from corpus.pipeline.rounds import make_streams
    from corpus.recipe.model import load_recipe
    from corpus.recipe.stand_ins import with_stand_ins
    from corpus.records.manifest import MANIFEST_FILE, is_written
    from corpus.report.page import write_report
    from corpus.report.tables import show_manifest, show_stream_plans
    from corpus.streams.assemble import make_manifest
    from corpus.streams.planning import plan_streams

    started = time.monotonic()
    recipe = load_recipe(options.recipe)
    if options.stand_ins:
        recipe, replaced = with_stand_ins(recipe)
        for gated, open_one in replaced.items():
            say(f"stand-in: {open_one} for {gated}")
    unknown = [name for name in options.only if name not in recipe.mixture]
    if unknown:
        raise UserError(f"no mixture entry '{unknown[0]}'", where="--only", fix=nearest(unknown[0], recipe.mixture))
    planned, tokenizer = plan_streams(
        recipe, options.acquire, options.data, say, only=options.only, max_tokens=options.max_tokens,
        engine=options.engine, keep_removed=options.keep_removed,
    )  # fmt: skip
    plans = with_comparisons(planned)
    if options.dry_run:
        show_stream_plans(recipe, plans)
        return None
    records = make_streams(recipe, plans, options)
    if options.only:
        say(f"built {', '.join(records)}; build without --only for the manifest")
        return None
    manifest = make_manifest(
        recipe, plans, records, tokenizer, recipe_file=options.recipe, max_tokens=options.max_tokens,
        workers=options.workers, seconds=time.monotonic() - started,
    )  # fmt: skip
    folder = options.out / options.build_name(recipe.name)
    if not os.access(folder if folder.exists() else options.out, os.W_OK) and is_written(manifest, folder):
        show_manifest(manifest)
        say(f"finished before: {folder / MANIFEST_FILE}; nothing is left to do, and nothing can be written there")
        return manifest
    path = manifest.write(folder)
    # What it was made from, as written: the manifest has the resolved recipe's fingerprint only.
    with atomic_write(path.with_name("recipe.yaml")) as stream:
        stream.write(public_text(options.recipe.read_text(encoding="utf-8")).encode())
    show_manifest(manifest)
    say(f"manifest: {path}")
    say(f"report: {write_report(manifest, path.parent)}")
    if options.store:
        from corpus.streams.store import StorePath
        from corpus.streams.upload import upload_build

        store = StorePath(options.store)
        upload_build(folder, store, say)
        say(f"uploaded: {store / folder.name}; the folder it was made in, {options.out}, can be deleted")
    return manifest


if __name__ == "__main__":
    main()
