"""Which format a source's files are of, by their names: what is read, and what is refused with what to do instead."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from corpus.base.errors import UserError
from corpus.documents.compression import COMPRESSED

Format = Literal["jsonl", "parquet", "text"]

BY_ENDING: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".txt": "text",
}  # fmt: skip
"""What a name stands for, under any compression; names with other endings are JSON lines where nothing else is said."""

_CONVERT = "Convert it to JSON lines or parquet"
_KINDS: dict[str, tuple[str, str]] = {
    ".mds": ("a shard of a ready-made MDS dataset, which is no source", "Name the text it was made of"),
    ".npy .npz .bin .idx": ("no text: token ids are no source", "Name the text they encode"),
    ".arrow .feather .orc .avro .tfrecord .msgpack": ("of a format that is not read", _CONVERT),
    ".h5 .hdf5 .sqlite .db .xlsx .xls .ods": ("of a format that is not read", _CONVERT),
    ".pdf .docx .doc .epub .odt": ("of a format that is not read", "Extract its text"),
    ".pkl .pickle .pt .pth": ("a pickle, which is not read, as it may run code", _CONVERT),
    ".zip .tar .tgz .tbz .txz .7z .rar": ("an archive", "Unpack it"),
    ".lz4 .lzo .br .z .snappy .lzma": ("of a compression that is not read", "Unpack it"),
}
NOT_READ = {ending: told for endings, told in _KINDS.items() for ending in endings.split()}
"""Ending -> what such a file is, and what to do with it."""
TABLES = dict.fromkeys((".csv", ".tsv"), ("a table of separated values, which is not read", _CONVERT))
"""The same for endings of what can still be meant as a text each, by `format: text`."""


def format_of(names: Collection[str], given: Format | None, where: str) -> Format:
    """The format of a source's files: the one ``given``, or the one their names stand for.

    Raises UserError naming a file that is not read, contradicts what is given, or is of another format than the rest.
    """
    found: dict[Format, str] = {}
    for name in names:
        ending = _ending(name)
        what = NOT_READ.get(ending) or (TABLES.get(ending) if given != "text" else None)
        if what is not None:
            raise UserError(f"{name} is {what[0]}", where=where, fix=f"{what[1]}, or narrow the patterns.")
        if ending == ".parquet" and name.endswith(COMPRESSED):
            raise UserError(f"{name} is parquet inside another compression", where=where, fix="Unpack it.")
        guess = BY_ENDING.get(ending)
        if guess is not None:
            found.setdefault(guess, name)
        if given is not None and _contradicts(ending, guess, given):
            fix = f"Set its `format` to {guess or 'jsonl or text'}, or narrow its patterns to files of one format."
            raise UserError(f"{name} cannot be of the format '{given}'", where=where, fix=fix)
    if given is not None:
        return given
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise UserError(
            f"{first} is of the format '{one}', and {second} of '{other}'",
            where=where,
            fix="Narrow its patterns to files of one format, or set its `format`.",
        )
    # Where some are parquet, all must be.
    return format_of(names, "parquet", where) if "parquet" in found else next(iter(found), "jsonl")


def _contradicts(ending: str, guess: Format | None, given: Format) -> bool:
    if given == "text":  # any text may be one, a .json file of a code base too
        return guess == "parquet" or ending in (".jsonl", ".ndjson")
    return (guess == "parquet") != (given == "parquet")


def _ending(name: str) -> str:
    """The ending of a name, in small letters, without that of a compression."""
    parts = name.rsplit("/", 1)[-1].lower().split(".")[1:]
    while parts and f".{parts[-1]}" in COMPRESSED:
        parts.pop()
    return f".{parts[-1]}" if parts else ""
