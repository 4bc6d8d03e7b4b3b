"""`python -m corpus.inspect PATH`: show a build, a stream or a published manifest; verify shards; decode samples."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError, command, nearest
from corpus.streams.mds import INDEX_FILE, read_shard
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
    from corpus.records.stream import load_stream
    from corpus.streams.finish import damaged_files

    report = {name: damaged_files(folder) for name, folder in streams.items()}
    for name, fingerprint in expected.items():
        if not report[name] and load_stream(streams[name]).fingerprint != fingerprint:
            report[name] = ["stream.json: is not of the stream that the manifest was made from"]
    if args.json:
        print(json.dumps({"damaged": report}, indent=2))
    else:
        for name, problems in report.items():
            for problem in problems:
                print(_printable(f"{name}: {streams[name].name}/{problem}"))
            if not problems:
                print(f"{name}: every shard matches its hash")
    return 1 if any(report.values()) else 0


def _hits(args: argparse.Namespace, streams: dict[str, Path]) -> int:
    found = {name: contaminated_documents(folder) for name, folder in streams.items()}
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, documents in found.items():
        print(f"{name}: {len(documents)} documents dropped as contaminated")
        for document in documents:
            print(_printable(f"  {document['id']}"))
            for hit in document["hits"]:
                print(_printable(f"    {hit['example']} at character {hit['start']}: {hit['ngram']}"))
    return 0


def contaminated_documents(folder: Path) -> list[dict[str, Any]]:
    """The documents of a stream that decontamination dropped, in order: {id, hits: [{example, ngram, start}]}.

    Raises UserError when the stream does not tell of all of them.
    """
    from corpus.cleaning.reasons import CONTAMINATED
    from corpus.records.stream import load_stream
    from corpus.streams.plan import HITS_FILE

    documents: list[dict[str, Any]] = []
    record = load_stream(folder)
    for unit in record.units:
        dropped = unit.documents.dropped.get(CONTAMINATED, 0)
        file = folder / "units" / f"{unit.unit:06d}" / HITS_FILE
        lines = file.read_bytes().splitlines() if dropped and file.is_file() else []
        if len(lines) != dropped:
            raise UserError(
                f"tells of {len(lines)} of the {dropped} documents that were dropped", where=str(file),
                fix="Build the stream again to have all of them listed.",
            )  # fmt: skip
        documents += map(json.loads, lines)
    return documents


def _samples(args: argparse.Namespace, streams: dict[str, Path]) -> int:
    from corpus.records.stream import load_stream

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
        return 0
    for index, documents in decoded:
        print(f"--- sample {index} of {record.samples} of {name}")
        for document in documents:
            print(f"{'' if document['starts'] else '[goes on] '}{_printable(document['text'])}"
                  f"{'' if document['ends'] else ' [cut]'}\n")  # fmt: skip
    return 0


def _printable(text: str) -> str:
    """Corpus text without the control characters that could drive a terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def decode_samples(folder: Path, record: StreamRecord, count: int) -> list[tuple[int, list[dict[str, Any]]]]:
    """``count`` samples spread evenly over a stream, each as its documents: {text, starts, ends}.

    ``starts`` and ``ends`` tell whether the document's first and last token are inside the sample.
    """
    import numpy as np
    from tokenizers import Tokenizer

    data = folder.parent.parent
    tokenizer = Tokenizer.from_str((data / record.tokenizer.path / "tokenizer.json").read_bytes().decode())
    picks = sorted({int(index) for index in np.linspace(0, record.samples - 1, min(count, record.samples))})
    bos, eos = record.tokenizer.bos_id, record.tokenizer.eos_id
    shown = []
    for index, ids in read_samples(folder, picks):
        documents: list[dict[str, Any]] = []
        current: dict[str, Any] | None = None
        for token in ids.tolist():
            if record.boundary != "eos" and token == bos:
                if current is not None and record.boundary == "bos":
                    current["ends"] = True
                current = {"ids": [], "starts": True, "ends": False}
                documents.append(current)
                continue
            if current is None:
                current = {"ids": [], "starts": record.boundary == "eos" and bool(documents), "ends": False}
                documents.append(current)
            if record.boundary != "bos" and token == eos:
                current["ends"] = True
                current = None
                continue
            current["ids"].append(token)
        shown.append(
            (index, [{"text": tokenizer.decode(d["ids"]), "starts": d["starts"], "ends": d["ends"]} for d in documents])
        )
    return shown


def read_samples(folder: Path, picks: list[int]) -> list[tuple[int, Any]]:
    """The ids of chosen samples of a stream, read straight from its shards without changing anything on disk."""
    out = []
    first = 0
    for shard in json.loads((folder / INDEX_FILE).read_bytes())["shards"]:
        inside = [pick - first for pick in picks if first <= pick < first + shard["samples"]]
        if inside:
            rows = read_shard(folder, shard)
            out += [(first + row, rows[row]) for row in inside]
        first += shard["samples"]
    return out


if __name__ == "__main__":
    main()
