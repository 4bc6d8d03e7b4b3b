"""What `python -m corpus.inspect` can show of the streams of a build, each as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError, nearest
from corpus.recipe.published import load_published
from corpus.records.manifest import Manifest
from corpus.records.stream import StreamRecord, load_stream
from corpus.report import findings
from corpus.report.tables import show_inventory, show_manifest, show_published, show_stream
from corpus.streams.hits import contaminated_documents
from corpus.streams.inventory import prune, take_inventory
from corpus.streams.places import sample_parts
from corpus.streams.removed import removed_documents
from corpus.streams.samples import decode_samples
from corpus.streams.verify import damage

Streams = Mapping[str, Path]
"""Folder of each stream, by the name of its mixture entry."""


def show_record(shown: Manifest | StreamRecord, as_json: bool) -> None:
    """Print a manifest or a stream's record."""
    if as_json:
        extra = {"fingerprint": shown.fingerprint} if isinstance(shown, Manifest) else {}
        _print_json({**shown.model_dump(mode="json"), **extra})
    elif isinstance(shown, Manifest):
        show_manifest(shown)
    else:
        show_stream(shown)


def show_reference(file: Path, as_json: bool) -> None:
    """Print a published reference."""
    published = load_published(file)
    if as_json:
        _print_json(published.model_dump(mode="json"))
    else:
        show_published(published)


def show_data_folder(data: Path, as_json: bool, delete: bool, sure: bool) -> None:
    """Print what lies in a data folder; ``delete`` takes away what is unused, when ``sure``."""
    inventory = take_inventory(data)
    if as_json:
        _print_json({
            "builds": {name: manifest.fingerprint for name, manifest in inventory.builds.items()},
            "streams": [{"name": s.name, "bytes": s.bytes, "complete": s.record is not None, "builds": s.builds}
                        for s in inventory.streams],
            "tokenizers": inventory.tokenizers, "other": inventory.other,
            "unused": [str(path) for path in inventory.unused],
        })  # fmt: skip
    else:
        show_inventory(inventory)
    if delete and not sure and inventory.unused:
        raise UserError(f"would delete the {len(inventory.unused)} unused folders", where="--prune", fix="Add --yes.")
    for path in prune(inventory) if delete else []:
        print(f"deleted {path}")


def verify(streams: Streams, expected: Mapping[str, str], as_json: bool) -> int:
    """Hash every shard; returns 1 when something is damaged."""
    report = damage(dict(streams), dict(expected))
    if as_json:
        _print_json({"damaged": report})
    else:
        findings.show_damage(report, dict(streams))
    return 1 if any(report.values()) else 0


def show_hits(streams: Streams, as_json: bool) -> None:
    """Print what decontamination dropped."""
    found = {name: contaminated_documents(folder) for name, folder in streams.items()}
    _either(found, as_json, lambda: findings.show_hits(found))


def show_samples(streams: Streams, count: str, name: str, as_json: bool) -> None:
    """Print ``count`` samples of a stream, decoded."""
    folder = _stream(streams, name, "--samples")
    record = load_stream(folder)
    decoded = decode_samples(folder, record, _whole(count, "--samples"))
    data = [{"sample": index, "documents": documents} for index, documents in decoded]
    _either(data, as_json, lambda: findings.show_samples(decoded, name, record.samples))


def show_sample(streams: Streams, sample: str, name: str, as_json: bool) -> None:
    """Print which documents one sample consists of."""
    folder = _stream(streams, name, "--sample")
    if not sample.isdigit():
        raise UserError(f"a sample has a number from 0 on, got '{sample}'", where="--sample")
    parts = sample_parts(folder, load_stream(folder), int(sample))
    data = [part._asdict() for part in parts]
    _either(data, as_json, lambda: findings.show_parts(parts, name, int(sample)))


def show_removed(streams: Streams, count: str, reason: str | None, as_json: bool) -> None:
    """Print documents that cleaning removed, ``count`` of each stream."""
    found = {}
    for name, folder in streams.items():
        dropped = load_stream(folder).documents.dropped
        if reason is not None and reason not in dropped:
            continue
        found[name] = removed_documents(folder, _whole(count, "--removed"), reason)
    if reason is not None and not found:
        known = {each for folder in streams.values() for each in load_stream(folder).documents.dropped}
        raise UserError(f"nothing was dropped as '{reason}'", where="--removed", fix=nearest(reason, known))
    _either(found, as_json, lambda: findings.show_removed([each for documents in found.values() for each in documents]))


def _whole(text: str, where: str) -> int:
    if not text.isdigit() or not int(text):
        raise UserError(f"the number must be positive, got '{text}'", where=where)
    return int(text)


def _stream(streams: Streams, name: str, where: str) -> Path:
    if name not in streams:
        raise UserError(f"no mixture entry '{name}' here", where=where, fix=nearest(name, streams))
    return streams[name]


def _either(data: Any, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        _print_json(data)
    else:
        show()


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))
