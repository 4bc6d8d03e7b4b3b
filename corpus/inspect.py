"""`python -m corpus.inspect PATH`: show a build, a stream or a published manifest; verify shards; decode samples."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError, command, nearest
from corpus.streams.store import location

if TYPE_CHECKING:
    from corpus.records.manifest import Manifest
    from corpus.records.stream import StreamRecord


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        args = _arguments(argv)
        raise SystemExit(inspect(args))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m corpus.inspect",
        description="Show what a build holds: documents, drops by reason, tokens, weights and epochs of each source.",
    )
    parser.add_argument(
        "path", type=location, help="a build (data/sample), a stream (data/streams/...), or a manifest file; also s3://"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--verify", action="store_true", help="re-hash every shard; names damaged ones and exits 1")
    parser.add_argument("--hits", action="store_true", help="list the documents dropped as contaminated, and by what")
    parser.add_argument("--samples", nargs=2, metavar=("N", "SOURCE"), help="decode N samples of a source")
    return parser.parse_args(argv)


def inspect(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code (1 when --verify found damage)."""
    from corpus.base.files import read_json
    from corpus.records.manifest import MANIFEST_FILE, load_manifest
    from corpus.records.stream import STREAM_FILE, load_stream

    path: Path = args.path
    expected: dict[str, str] = {}
    if path.is_dir() and (path / STREAM_FILE).is_file():
        record = load_stream(path)
        streams = {record.source: path}
        if not (args.verify or args.samples or args.hits):
            return _print(args, record.model_dump(mode="json"), record)
    elif path.is_dir() and not (path / MANIFEST_FILE).is_file():
        raise UserError(
            "holds neither a manifest nor a stream",
            where=str(path),
            fix="Build it first (python -m corpus.build RECIPE), or point to data/<recipe> or data/streams/<stream>.",
        )
    else:
        file = path / MANIFEST_FILE if path.is_dir() else path
        if read_json(file).get("kind") == "published":
            return _published(args, file)
        manifest = load_manifest(file)
        streams = {name: file.parent / source.stream for name, source in manifest.sources.items()}
        expected = {name: source.stream_fingerprint for name, source in manifest.sources.items()}
        if not (args.verify or args.samples or args.hits):
            return _print(args, {**manifest.model_dump(mode="json"), "fingerprint": manifest.fingerprint}, manifest)
    if args.verify:
        return _verify(args, streams, expected)
    return _hits(args, streams) if args.hits else _samples(args, streams)


def _print(args: argparse.Namespace, data: dict[str, Any], shown: Manifest | StreamRecord) -> int:
    from corpus.records.manifest import Manifest
    from corpus.report.tables import show_manifest, show_stream

    if args.json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    elif isinstance(shown, Manifest):
        show_manifest(shown)
    else:
        show_stream(shown)
    return 0


def _published(args: argparse.Namespace, file: Path) -> int:
    from corpus.recipe.published import load_published
    from corpus.report.tables import show_published

    if args.verify or args.samples or args.hits:
        raise UserError("is a published reference: it has no shards", where=str(file), fix="Point to a build.")
    published = load_published(file)
    if args.json:
        print(json.dumps(published.model_dump(mode="json"), indent=2, ensure_ascii=False))
    else:
        show_published(published)
    return 0


def _verify(args: argparse.Namespace, streams: dict[str, Path], expected: dict[str, str]) -> int:
    from corpus.report.findings import show_damage
    from corpus.streams.verify import damage

    report = damage(streams, expected)
    if args.json:
        print(json.dumps({"damaged": report}, indent=2))
    else:
        show_damage(report, streams)
    return 1 if any(report.values()) else 0


def _hits(args: argparse.Namespace, streams: dict[str, Path]) -> int:
    from corpus.report.findings import show_hits
    from corpus.streams.hits import contaminated_documents

    found = {name: contaminated_documents(folder) for name, folder in streams.items()}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        show_hits(found)
    return 0


def _samples(args: argparse.Namespace, streams: dict[str, Path]) -> int:
    from corpus.records.stream import load_stream
    from corpus.report.findings import show_samples
    from corpus.streams.samples import decode_samples

    count, name = args.samples
    if not count.isdigit() or not int(count):
        raise UserError(f"the number of samples must be positive, got '{count}'", where="--samples")
    if name not in streams:
        raise UserError(f"no source '{name}' here", where="--samples", fix=nearest(name, streams))
    folder = streams[name]
    record = load_stream(folder)
    decoded = decode_samples(folder, record, int(count))
    if args.json:
        shown = [{"sample": index, "documents": documents} for index, documents in decoded]
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        show_samples(decoded, name, record.samples)
    return 0


if __name__ == "__main__":
    main()
