"""What is found inside streams, as text for people: damage, contaminated documents, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpus.streams.places import Part
from corpus.streams.samples import Decoded


def show_damage(report: dict[str, list[str]], streams: dict[str, Path]) -> None:
    """Print what is wrong with each stream."""
    for name, problems in report.items():
        for problem in problems:
            print(_printable(f"{name}: {streams[name].name}/{problem}"))
        if not problems:
            print(f"{name}: every shard matches its hash")


def show_hits(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the documents that decontamination dropped from each stream, and what each shares."""
    for name, documents in found.items():
        print(f"{name}: {len(documents)} documents dropped as contaminated")
        for document in documents:
            print(_printable(f"  {document['id']}"))
            for hit in document["hits"]:
                print(_printable(f"    {hit['example']} at character {hit['start']}: {hit['ngram']}"))


def show_samples(decoded: list[Decoded], name: str, samples: int) -> None:
    """Print decoded samples of the source ``name``, which holds ``samples``."""
    for index, documents in decoded:
        print(f"--- sample {index} of {samples} of {name}")
        for document in documents:
            print(f"{'' if document['starts'] else '[goes on] '}{_printable(document['text'])}"
                  f"{'' if document['ends'] else ' [cut]'}\n")  # fmt: skip


def show_parts(parts: list[Part], name: str, sample: int) -> None:
    """Print which documents one sample of the source ``name`` consists of."""
    print(f"sample {sample} of {name}")
    at = 0
    for part in parts:
        document = _printable(part.document) or "(mark between fragments)"
        inside = f"{part.first}-{part.first + part.length - 1} of {part.of}"
        print(f"  ids {at}-{at + part.length - 1}: {document}, its ids {inside}")
        at += part.length


def show_removed(documents: list[dict[str, Any]]) -> None:
    """Print removed documents, each with why."""
    for document in documents:
        print(_printable(f"--- {document['id']}: {document['reason']}\n{document['text']}\n"))


def _printable(text: str) -> str:
    """Corpus text without the control characters that could drive a terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
