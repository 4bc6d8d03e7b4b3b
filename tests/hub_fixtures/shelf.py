"""What the makers of the fixtures share: text, records, file formats, and the count of what a build must find."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from corpus.catalogue.load import load_catalogue

WORDS = (
    "the of and to in is that for it as with on be by this are from at or an have not which but one all were when we "
    "there can more if their will would about up out them then other into time two may these some could people like "
    "number way water been call who oil its now find long down day did get come made part integral matrix theorem "
    "naïve café 数学 — “so” x_1 = 42; def f(n): return n**2 {'a': [1, 2]} \\frac{1}{2} $a^2+b^2$ <|begin_of_text|> "
    "<reponame>ann/demo<gh_stars>3 </s> <s> \t 0x1F http://example.org/a?b=1 it's 1,000.50"
).split(" ")
BROKEN_LINE = b'{"text": "cut off in the mid'


@dataclass
class Expected:
    """What a build must say of a source."""

    files: int = 0
    bytes: int = 0
    joined_files: int = 0
    """Files of other repositories its records are joined with."""
    joined_bytes: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        """Records in the source."""
        return self.kept + sum(self.dropped.values())


def prose(seed: str, words: int) -> str:
    """Deterministic text of so many words."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def jsonl(records: Sequence[dict[str, Any] | bytes]) -> bytes:
    """JSON lines; bytes go in as they are."""
    return b"".join(
        (record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()) + b"\n"
        for record in records
    )


def gz(data: bytes) -> bytes:
    """gzip without a time stamp."""
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    """One zstd frame."""
    return zstandard.ZstdCompressor().compress(data)


def parquet(records: Sequence[dict[str, Any]]) -> bytes:
    """Rows as parquet in two row groups, with the columns of all rows."""
    columns = dict.fromkeys(name for record in records for name in record)
    table = pa.table({name: pa.array([record.get(name) for record in records]) for name in columns})
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=max(1, len(records) // 2))
    return out.getvalue()


Pack = Callable[[Sequence[Any]], bytes]
PACKS: dict[str, Pack] = {
    ".json.gz": lambda records: gz(jsonl(records)),
    ".jsonl.gz": lambda records: gz(jsonl(records)),
    ".json.zst": lambda records: zst(jsonl(records)),
    ".jsonl.zst": lambda records: zst(jsonl(records)),
    ".jsonl": jsonl,
    ".parquet": parquet,
}


class Shelf:
    """The files made so far, and what each source is to find in them."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.urls: dict[str, bytes] = {}
        self.expected = {name: Expected() for name, s in load_catalogue().items() if s.origin.kind != "embedded"}

    def hub(
        self, repo: str, path: str, records: Sequence[Any], sources: str, dropped: Mapping[str, int] | None = None
    ) -> None:
        """A file of a repository, and the sources (by name, spaces between) that read it."""
        data = next(pack for ending, pack in PACKS.items() if path.endswith(ending))(records)
        self.repos.setdefault(repo, {})[path] = data
        self._count(data, records, sources, dropped or {})

    def url(self, url: str, records: Sequence[Any], sources: str, dropped: Mapping[str, int] | None = None) -> None:
        """A file behind a plain URL."""
        data = next(pack for ending, pack in PACKS.items() if url.endswith(ending))(records)
        self.urls[url] = data
        self._count(data, records, sources, dropped or {})

    def looked_up(self, repo: str, path: str, records: Sequence[Any], source: str) -> None:
        """A file that a source's records are joined with."""
        self.hub(repo, path, records, "")
        self.expected[source].joined_files += 1
        self.expected[source].joined_bytes += len(self.repos[repo][path])

    def other(self, repo: str, path: str, data: bytes = b"none of a build's business\n") -> None:
        """A file that no glob may match."""
        self.repos.setdefault(repo, {})[path] = data

    def _count(self, data: bytes, records: Sequence[Any], sources: str, dropped: Mapping[str, int]) -> None:
        blank = sum(record == b"" for record in records)
        for name in sources.split():
            found = self.expected[name]
            found.files += 1
            found.bytes += len(data)
            found.kept += len(records) - blank - sum(dropped.values())
            found.dropped.update(dropped)


def dolma_lines(name: str, count: int, words: int = 350, odd: bool = True) -> list[dict[str, Any] | bytes]:
    """Lines as in Dolma, Dolmino and peS2o: `metadata` and `attributes` are of another kind in each row.

    With ``odd`` a blank line and the four lines of ODD come among them.
    """
    rows: list[dict[str, Any] | bytes] = []
    for n in range(count):
        row: dict[str, Any] = {
            "id": f"{name}-{n}",
            "text": prose(f"{name}{n}", words),
            "source": name,
            "added": "2024-03-01T00:00:00.000Z",
            "created": "2023-01-01",
            "version": "v0",
            "metadata": [{"url": "http://example.org", "score": 0.5}, {"score": "high", "tags": [1, None]}, None, {}][
                n % 4
            ],
        }
        if n % 3 == 0:
            row["attributes"] = {"paragraphs": [[0, 12, 0.25]], "lang": {"en": 0.9} if n % 2 else None}
        if n % 5 == 0:
            row["doc"] = {"arrival": n}
        rows.append(row)
    odd_ones = [b"", {"id": "e", "text": ""}, {"id": "m"}, {"id": "n", "text": None}, BROKEN_LINE]
    return [*rows[:1], *odd_ones, *rows[1:]] if odd else rows


ODD = {"empty": 1, "missing_field": 1, "not_text": 1, "invalid_json": 1}


def rows_of(name: str, count: int, text: str, columns: Callable[[int], dict[str, Any]], words: int = 350) -> list[Any]:
    """Parquet rows, the last two without text (ODD_ROWS)."""
    rows = [{text: prose(f"{name}{n}", words), **columns(n)} for n in range(count)]
    return [*rows, {text: None, **columns(count)}, {text: "", **columns(count + 1)}]


ODD_ROWS = {"not_text": 1, "empty": 1}
