"""Sections that account for the build: tokens, licences, and where everything comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from corpus.base.numbers import file_size
from corpus.records.manifest import Manifest
from corpus.records.stream import StreamRecord
from corpus.report.html import Child, Markup, el, join, link, number, table
from corpus.report.layout import Entry, row, section


def accounting(entries: list[Entry]) -> Markup:
    """text + boundary = written + remainder, for each source."""
    rows = []
    for entry in entries:
        tokens, size = entry.record.tokens, entry.record.text_bytes
        balanced = tokens.text + tokens.boundary == tokens.written + tokens.remainder
        rows.append(row(
            entry.head, tokens.text, tokens.boundary, tokens.written, tokens.remainder,
            el("span", "balanced", class_="good") if balanced else el("span", "does not add up", class_="bad"),
            number(size, file_size(size)),
            number(size / tokens.text, f"{size / tokens.text:.2f}") if tokens.text else "",
            entry.record.shards, number(entry.record.shard_bytes, file_size(entry.record.shard_bytes)),
        ))  # fmt: skip
    total = [entry.record.tokens for entry in entries]
    rows.append(row(
        el("th", "all", scope="row"), sum(one.text for one in total), sum(one.boundary for one in total),
        sum(one.written for one in total), sum(one.remainder for one in total), "",
        number(sum(entry.record.text_bytes for entry in entries),
               file_size(sum(entry.record.text_bytes for entry in entries))),
        "", sum(entry.record.shards for entry in entries),
        number(sum(entry.record.shard_bytes for entry in entries),
               file_size(sum(entry.record.shard_bytes for entry in entries))), class_="total",
    ))  # fmt: skip
    return section(
        "accounting",
        "Token accounting",
        "No token is lost: those of the text and the boundary ids added to them are all written, but for a remainder "
        "of less than one sample.",
        table("Token accounting", ["source", "text", "+ boundary", "= written", "+ remainder", "check", "text size",
                                   "bytes per token", "shards", "stored"], rows, (0, 5)),
    )  # fmt: skip


def licences(entries: list[Entry]) -> Markup:
    """Where each source comes from and what its licence allows."""
    rows = []
    for entry in entries:
        allowed = entry.source.redistributable
        rows.append(row(
            entry.head, entry.record.title, link(entry.source.licence, entry.record.licence_url),
            el("span", "may be passed on" if allowed else "do not publish", class_="good" if allowed else "bad"),
            _origin(entry.record), class_=None if allowed else "private",
        ))  # fmt: skip
    return section(
        "licences",
        "Licences",
        "A stream carries the licence of the data it was made from.",
        table("Licences", ["source", "data set", "licence", "streams", "origin"], rows, range(5)),
    )


def _origin(record: StreamRecord) -> Child:
    origin, kind = record.origin, record.origin.get("kind")
    if kind == "hub":
        repo = str(origin.get("repo"))
        return link(repo, f"https://huggingface.co/datasets/{repo}/tree/{record.revision}")
    if kind == "urls":
        listed = [str(url) for url in origin.get("urls") or []]
        first = str(origin.get("url_list") or (listed[0] if listed else "URLs"))
        more = f" and {len(listed) - 1:,} more" if not origin.get("url_list") and len(listed) > 1 else ""
        return join(link(first, first), more)
    if kind == "s3":
        return ", ".join(map(str, origin.get("paths") or []))
    if kind == "embedded":
        return f"every Python installation ({origin.get('name')})"
    return "local files"


def provenance(manifest: Manifest, entries: list[Entry]) -> Markup:
    """Revisions, fingerprints and versions: what is needed to make the same bytes again."""
    rows = (
        row(entry.head, entry.source.source, *(el("code", value) for value in (
            entry.source.revision, entry.record.key, entry.source.stream_fingerprint, entry.record.index_sha256)))
        for entry in entries
    )  # fmt: skip
    tokenizer = manifest.tokenizer
    facts: list[tuple[str, str]] = [
        ("manifest fingerprint", manifest.fingerprint),
        ("recipe fingerprint", manifest.recipe_sha256),
        ("seed", str(manifest.seed)),
        ("tokenizer", f"{tokenizer.name}, {tokenizer.vocab_size:,} ids, BOS {_id(tokenizer.bos_id)}, "
                      f"EOS {_id(tokenizer.eos_id)}"),
        ("tokenizer file", tokenizer.sha256),
        ("boundary", manifest.boundary),
        ("document mask", "yes" if manifest.document_mask else "no"),
        *_flat(manifest.built),
    ]  # fmt: skip
    return section(
        "provenance",
        "Provenance",
        "The same recipe, revisions and versions give the same bytes again.",
        table("Revisions", ["source", "catalogue name", "revision", "stream key", "stream fingerprint", "index hash"],
              rows, range(6)),
        el("dl", (el("div", el("dt", name), el("dd", el("code", value))) for name, value in facts), class_="facts"),
    )  # fmt: skip


def _id(token_id: int | None) -> str:
    return "none" if token_id is None else str(token_id)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{key} ")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
