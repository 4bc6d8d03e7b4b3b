"""`python -m corpus.inspect PATH`: what a data folder, a build, a stream or a published manifest holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from corpus.base.errors import UserError, command
from corpus.streams.store import location


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        args = _arguments(argv)
        raise SystemExit(inspect(args))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m corpus.inspect",
        description="Show what a build holds: documents, drops by reason, tokens, weights and epochs of each source; "
        "or what a data folder holds, and what of it is unused.",
    )
    parser.add_argument(
        "path", type=location,
        help="a data folder (data), a build (data/sample), a stream (data/streams/...), or a manifest file; also s3://",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--verify", action="store_true", help="re-hash every shard; names damaged ones and exits 1")
    parser.add_argument("--hits", action="store_true", help="list the documents dropped as contaminated, and by what")
    parser.add_argument("--samples", nargs=2, metavar=("N", "ENTRY"), help="decode N samples of a mixture entry")
    parser.add_argument(
        "--sample", nargs=2, metavar=("NUMBER", "ENTRY"), help="which documents this sample is made of: file and place"
    )
    parser.add_argument(
        "--removed", nargs="+", metavar="N [REASON]", help="show N documents that cleaning removed (--keep-removed)"
    )
    parser.add_argument("--prune", action="store_true", help="of a data folder: delete what no build uses")
    parser.add_argument("--yes", action="store_true", help="with --prune: do it")
    args = parser.parse_args(argv)
    if args.removed and len(args.removed) > 2:
        parser.error("--removed takes a number and at most one reason")
    return args


def inspect(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code (1 when --verify found damage)."""
    from corpus.base.files import read_json
    from corpus.records.manifest import MANIFEST_FILE, load_manifest
    from corpus.records.stream import STREAM_FILE, load_stream
    from corpus.report import inspection

    path: Path = args.path
    asked = args.verify or args.hits or args.samples or args.sample or args.removed
    expected: dict[str, str] = {}
    if path.is_dir() and (path / STREAM_FILE).is_file():
        record = load_stream(path)
        streams = {record.source: path}
        if not asked:
            inspection.show_record(record, args.json)
            return 0
    elif path.is_dir() and not (path / MANIFEST_FILE).is_file():
        if asked:
            raise UserError("holds neither a manifest nor a stream", where=str(path), fix="Point to a build.")
        inspection.show_data_folder(path, args.json, args.prune, args.yes)
        return 0
    else:
        file = path / MANIFEST_FILE if path.is_dir() else path
        if read_json(file).get("kind") == "published":
            if asked:
                raise UserError("is a published reference: it has no shards", where=str(file), fix="Point to a build.")
            inspection.show_reference(file, args.json)
            return 0
        manifest = load_manifest(file)
        if not asked:
            inspection.show_record(manifest, args.json)
            return 0
        streams = {name: file.parent / source.stream for name, source in manifest.sources.items()}
        expected = {name: source.stream_fingerprint for name, source in manifest.sources.items()}
    if args.verify:
        return inspection.verify(streams, expected, args.json)
    if args.hits:
        inspection.show_hits(streams, args.json)
    elif args.sample:
        inspection.show_sample(streams, args.sample[0], args.sample[1], args.json)
    elif args.samples:
        inspection.show_samples(streams, args.samples[0], args.samples[1], args.json)
    else:
        inspection.show_removed(streams, args.removed[0], args.removed[1] if args.removed[1:] else None, args.json)
    return 0


if __name__ == "__main__":
    main()
