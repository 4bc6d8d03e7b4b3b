"""Joins done before a source is read: records whose parts lie in several files become JSON lines.

`prepare` writes `part-NNNNN.jsonl` (about 256 MB each) and `prepared.json` with its counts, complete or not at all; the
bytes depend on the input files only. Memory stays bounded: questions to be looked up lie in a SQLite file meanwhile.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from corpus.acquire.origins import Origin
from corpus.base.errors import UserError
from corpus.base.files import publish_dir, write_json
from corpus.base.locks import locked
from corpus.documents.compression import open_decompressed, reading
from corpus.documents.fields import top_level, value_or_none
from corpus.documents.prepare import AlignedLines, Lookup, RecoveredQuestions
from corpus.documents.read import read_piece
from corpus.documents.readable import Readable
from corpus.documents.record import BadRecord, Unreadable
from corpus.documents.units import WHOLE

PART_BYTES = 256 << 20
COUNTS_FILE = "prepared.json"


def input_origins(source: Readable) -> dict[str, tuple[Origin, str]]:
    """The further origins a source's `prepare` reads, with their formats, by the name that prefixes their files."""
    if isinstance(source.prepare, RecoveredQuestions):
        return {name: (lookup.origin, lookup.format) for name, lookup in source.prepare.lookups.items()}
    return {}


def prepare(source: Readable, files: Mapping[str, Path], out_dir: Path) -> list[Path]:
    """Write the joined records of ``source`` into ``out_dir`` and return the parts in order; again is a no-op.

    ``files`` maps names to local copies: a file of the source's own origin under its name there, a file of one of
    :func:`input_origins` under `<input>:<name>`. Raises UserError when files are missing or cannot be joined.
    """
    assert source.prepare is not None
    # Two builds may want the same join at once: the second waits, and finds it done.
    if not (out_dir / COUNTS_FILE).exists():
        with locked(out_dir.with_name(f".{out_dir.name}.lock")):
            _join_once(source, files, out_dir)
    return sorted(out_dir.glob("part-*.jsonl"))


def _join_once(source: Readable, files: Mapping[str, Path], out_dir: Path) -> None:
    if not (out_dir / COUNTS_FILE).exists():
        beside = out_dir.with_name(f".{out_dir.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            with _Parts(beside) as parts:
                if isinstance(source.prepare, AlignedLines):
                    counts = _aligned_lines(source.prepare, files, parts)
                else:
                    assert source.prepare is not None
                    counts = _recovered_questions(source.prepare, source, files, parts, beside / "questions.sqlite")
            write_json(beside / COUNTS_FILE, counts)
            publish_dir(beside, out_dir)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


class _Parts:
    """Writes JSON lines into numbered files of about PART_BYTES."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number, self.room = folder, 0, 0
        self.stream: IO[bytes] | None = None

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stream:
            self.stream.close()

    def write(self, record: dict[str, Any]) -> None:
        try:
            line = orjson.dumps(record, _unreadable, orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:
            # Too deeply nested, or of a type JSON has not: goes on as an unreadable record does.
            line = b"{}\n"
        if self.stream is None or self.room < len(line):
            if self.stream:
                self.stream.close()
            self.stream = (self.folder / f"part-{self.number:05d}.jsonl").open("wb")
            self.number, self.room = self.number + 1, PART_BYTES
        self.stream.write(line)
        self.room -= len(line)


def _unreadable(value: Any) -> None:
    """What JSON has in the place of a value that cannot be held: null."""
    if not isinstance(value, Unreadable):
        raise TypeError


def _aligned_lines(spec: AlignedLines, files: Mapping[str, Path], parts: _Parts) -> dict[str, Any]:
    pairs = _matching(files, spec.records), _matching(files, spec.labels)
    if len(pairs[0]) != len(pairs[1]) or not pairs[0]:
        raise UserError(
            f"needs as many files matching '{spec.records}' as '{spec.labels}'",
            where="prepare",
            fix="Download them again.",
        )
    counts = {"records": 0, "unreadable": 0}
    for records_name, labels_name in zip(*pairs, strict=True):
        number = 0
        with reading(labels_name), open_decompressed(files[labels_name], labels_name) as stream:
            labels = (line for line in stream if line.strip())
            for record in _records(files[records_name], records_name, "jsonl", None):
                label = next(labels, None)
                if label is None:
                    break
                number += 1
                counts["records" if record is not None else "unreadable"] += 1
                # An unreadable line goes on as an empty record, which the adapter drops under a counted reason.
                parts.write({**(record or {}), spec.key: label.decode("utf-8", "replace").strip()})
            else:
                label = next(labels, b"")
            if label != b"":
                raise UserError(
                    f"and {labels_name} differ in their number of lines (after {number:,} pairs)",
                    where=records_name,
                    fix="One of the two is incomplete: delete both downloads and run the same command again.",
                )
    return counts


def _recovered_questions(
    spec: RecoveredQuestions, source: Readable, files: Mapping[str, Path], parts: _Parts, database: Path
) -> dict[str, Any]:
    keep = source.adapter.needs()
    fields = keep | {"dataset", "split", "index"}
    counts: dict[str, Any] = {"records": 0, "recovered": 0, "not_recovered": {}}
    with contextlib.closing(sqlite3.connect(database)) as db:
        # The file is scratch: it is thrown away with the folder when anything goes wrong.
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("CREATE TABLE questions (key TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        for name, lookup in spec.lookups.items():
            _store_questions(db, name, lookup, files)
        own = sorted(name for name in files if name.split(":")[0] not in spec.lookups)
        for name in own:
            for record in _records(files[name], name, source.format, fields):
                counts["records"] += 1
                record = record or {}
                dataset = str(record.get("dataset"))
                key = f"{dataset}\0{record.get('split')}\0{record.get('index')}"
                found = db.execute("SELECT text FROM questions WHERE key = ?", (key,)).fetchone()
                if found:
                    record[spec.question] = found[0]
                    counts["recovered"] += 1
                else:
                    missing = dataset if dataset in spec.lookups else "unknown dataset"
                    counts["not_recovered"][missing] = counts["not_recovered"].get(missing, 0) + 1
                parts.write(top_level(record, keep))
    database.unlink()
    counts["not_recovered"] = dict(sorted(counts["not_recovered"].items()))
    return counts


def _store_questions(db: sqlite3.Connection, dataset: str, lookup: Lookup, files: Mapping[str, Path]) -> None:
    fields = [lookup.question, *lookup.sections]
    for split, pattern in lookup.splits.items():
        names = _matching({name: path for name, path in files.items() if ":" in name}, f"{dataset}:{pattern}")
        if not names:
            raise UserError(f"no file of '{dataset}' matches '{pattern}'", where="prepare", fix="Download it again.")
        index = 0
        for name in names:
            for record in _records(files[name], name, lookup.format, fields):
                text = _question(record or {}, lookup)
                if text:
                    db.execute("INSERT INTO questions VALUES (?, ?)", (f"{dataset}\0{split}\0{index}", text))
                index += 1
        expected = (lookup.rows or {}).get(split, index)
        if index != expected:
            raise UserError(
                f"its split '{split}' has {index:,} rows, but {expected:,} when the questions were numbered: "
                "each record might get another's question",
                where=f"prepare: '{dataset}'",
                fix="Pin its `revision` to the commit that was numbered.",
            )
    db.commit()


def _question(record: dict[str, Any], lookup: Lookup) -> str:
    """The question with its sections, in the order of the catalogue; '' when the record has none."""
    text = value_or_none(record, lookup.question)
    if not isinstance(text, str) or not text.strip():
        return ""
    pieces = [text]
    for field, heading in lookup.sections.items():
        value = value_or_none(record, field)
        if isinstance(value, str) and value.strip():
            pieces += [heading, value]
        elif isinstance(value, list) and value:
            pieces.append(heading)
            for example in value:
                for part, title in (("input", "Input"), ("output", "Output")):
                    if isinstance(example, dict) and isinstance(example.get(part), str):
                        pieces += [title, example[part]]
    return "\n\n".join(pieces)


def _matching(files: Mapping[str, Path], pattern: str) -> list[str]:
    from corpus.acquire.names import glob_regex

    regex = glob_regex(pattern)
    return sorted(name for name in files if regex.fullmatch(name))


def _records(
    path: Path, name: str, file_format: str, fields: Collection[str] | None
) -> Iterator[dict[str, Any] | None]:
    """Records in order, only ``fields`` of them for parquet; None stands for one that cannot be read."""
    for _, record in read_piece(path, name, file_format, 0, WHOLE, fields):  # type: ignore[arg-type]
        yield None if isinstance(record, BadRecord) else record
