"""wikitext-2 perplexity with the protocol of the MobileLLM papers' released evaluation.

The rows of the test split are joined by two newlines and tokenised once with one BOS in front; the ids are cut into
windows of 2048 that do not overlap, the rest is dropped; each window is scored on its 2047 inner targets, in float32;
the result is the exponential of the mean over windows.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

from corpus.base.errors import UserError
from training.base.progress_bar import Progress
from training.evaluation.subject import Subject
from training.model.losses import cross_entropy

WINDOW = 2048
"""Ids per window in the published protocol."""

TEST_SPLIT = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"
"""SHA-256 of wiki.test.raw (1,290,590 bytes), the test split of wikitext-2-raw-v1 as its authors published it."""


def read_rows(path: Path) -> list[str]:
    """The rows of a local copy of the split: parquet or JSON lines with a `text` column, else plain text.

    A plain text file is taken as the data set's own raw file is: its lines are the rows, blank ones empty.
    Raises UserError when it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = pq.read_table(path, columns=["text"])["text"].to_pylist()
        elif path.suffix in (".jsonl", ".json"):
            rows = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        else:
            with path.open(encoding="utf-8", newline="\n") as file:
                rows = [line if line.strip() else "" for line in file]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot be read: {error}", where=str(path),
            fix="Give wikitext-2-raw-v1's test split as .parquet, .jsonl with a 'text' column, or raw text.",
        ) from None  # fmt: skip
    return [str(row) for row in rows]


def wikitext(subject: Subject, path: Path, window: int, batch: int) -> dict[str, Any]:
    """Perplexity of the text in `path`, `window` ids at a time; see the module for the protocol."""
    limit = subject.model.cfg.max_positions
    if not 2 <= window <= limit:
        raise UserError(f"must be from 2 to the model's {limit} positions, got {window}", where="--window")
    bos = subject.manifest.tokenizer.bos_id
    rows = read_rows(path)
    text = "\n\n".join(rows)
    # The raw file's blank lines hold a space, the data set's rows made of them nothing.
    whole = hashlib.sha256("".join(row or " \n" for row in rows).encode()).hexdigest() == TEST_SPLIT
    ids = [*([] if bos is None else [bos]), *subject.tokenizer().encode(text)]
    windows = len(ids) // window
    if not windows:
        raise UserError(f"holds {len(ids)} tokens, less than one window of {window}", where=str(path))
    table = torch.tensor(ids[: windows * window]).view(windows, window)
    total = 0.0
    with torch.inference_mode(), Progress("wikitext", windows, "windows") as progress:
        for start in range(0, windows, batch):
            part = table[start : start + batch].to(subject.device)
            _, losses = subject.model(
                part[:, :-1], objective=lambda hidden, head, ids=part: cross_entropy(hidden, head, targets=ids[:, 1:])
            )
            total += losses.double().mean(dim=1).sum().item()
            progress.advance(len(part))
    loss = total / windows
    return {
        "file": path.name,
        "perplexity": math.exp(loss),
        "loss": loss,
        "windows": windows,
        "window": window,
        "tokens": len(ids),
        "test_split": whole,
        "published_protocol": whole and window == WINDOW and bos is not None,
    }
