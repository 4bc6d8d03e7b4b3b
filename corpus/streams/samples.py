"""Samples of a stream, read back and decoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpus.base.files import INDEX_FILE
from corpus.records.stream import StreamRecord
from corpus.streams.mds import read_shard

Decoded = tuple[int, list[dict[str, Any]]]
"""The number of a sample and its documents: {text, starts, ends}."""


def decode_samples(folder: Path, record: StreamRecord, count: int) -> list[Decoded]:
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
