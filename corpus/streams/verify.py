"""Whether complete streams are still as they were built."""

from __future__ import annotations

import json
from pathlib import Path

import xxhash

from corpus.base.files import INDEX_FILE, sha256_file
from corpus.records.stream import load_stream


def damage(streams: dict[str, Path], expected: dict[str, str]) -> dict[str, list[str]]:
    """What is wrong with each stream, one line per file; ``expected``: fingerprints that a manifest has of them."""
    report = {name: damaged_files(folder) for name, folder in streams.items()}
    for name, fingerprint in expected.items():
        if not report[name] and load_stream(streams[name]).fingerprint != fingerprint:
            report[name] = ["stream.json: is not of the stream that the manifest was made from"]
    return report


def damaged_files(folder: Path) -> list[str]:
    """Re-hash every shard of a complete stream against its index; returns what is wrong, one line per file."""
    record = load_stream(folder)
    if not (folder / INDEX_FILE).is_file():
        return [f"{INDEX_FILE}: missing"]
    if sha256_file(folder / INDEX_FILE) != record.index_sha256:
        return [f"{INDEX_FILE}: differs from the one the build wrote"]
    problems = []
    for entry in json.loads((folder / INDEX_FILE).read_bytes())["shards"]:
        part = entry["zip_data"] or entry["raw_data"]
        shard = folder / part["basename"]
        if not shard.is_file():
            problems.append(f"{part['basename']}: missing")
            continue
        digest = xxhash.xxh64()
        with shard.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != part["hashes"]["xxh64"]:
            problems.append(f"{part['basename']}: damaged")
    return problems
