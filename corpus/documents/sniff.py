"""What the beginning of a file says of its format. A file of another format is named, not counted in lines."""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

from corpus.base.errors import UserError

HEAD = 1 << 20
"""Bytes of the beginning that are looked at."""
REMOTE_HEAD = 64 << 10
"""The same of a file that is read from afar in ranges."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PACKED = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
"""First bytes of what is decompressed under its ending."""
OTHER = {
    b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a": "a rar archive",
    b"\x04\x22\x4d\x18": "lz4 data", b"ARROW1\0\0": "an Arrow file", b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array", b"SQLite format 3\0": "an SQLite database", b"Obj\x01": "an Avro file",
    b"PAR1\x15": "a parquet file", b"%PDF-": "a PDF file",
}  # fmt: skip
"""First bytes of what is not read under the name of another format."""
ENDINGS = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz"}
DEEPEST = 64
"""JSON nested more deeply is not looked into."""


def kind_of(head: bytes) -> str | None:
    """What the first bytes of a file show it to be, where they are those of no text."""
    for magic, packing in PACKED.items():
        if head.startswith(magic) and (packing != "bzip2" or head[4:10] == b"1AY&SY"):
            return f"{packing} data"
    for magic, kind in OTHER.items():
        if head.startswith(magic):
            return kind
    return "a tar archive" if head[257:262] == b"ustar" else None


def refuse_binary(head: bytes, name: str) -> None:
    """Raise UserError naming the file when ``head``, its (decompressed) beginning, is that of no text."""
    kind = kind_of(head)
    if kind is None:
        return
    ending = ENDINGS.get(kind.removesuffix(" data"))
    fix = f"Give it a name that ends in {ending}" if ending else "Unpack or convert it to JSON lines, parquet or text"
    raise UserError(f"is {kind}, and its name says otherwise", where=name, fix=f"{fix}, or leave it out.")


def is_utf16(head: bytes) -> bool:
    """Whether a text begins as UTF-16 (or UTF-32) does: with its mark, or with every other byte zero."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return True
    even, odd = head[:64:2], head[1:64:2]
    return len(odd) > 1 and (any(even), any(odd)) in ((True, False), (False, True))


def refuse_other_lines(head: bytes, whole: bool, name: str) -> None:
    """Raise UserError naming the file when ``head``, its beginning (or all of it), is that of no JSON lines.

    One that has a JSON object on a line of its own beside bad lines passes: those are counted.
    """
    refuse_binary(head, name)
    what = "UTF-16 text" if is_utf16(head) else _other_layout(head.removeprefix(BYTE_ORDER_MARK), whole)
    if what is not None:
        raise UserError(
            f"is not JSON lines but {what}",
            where=name,
            fix="Convert it to one JSON object per line (of UTF-8), set the source's `format`, or leave it out.",
        )


def _other_layout(head: bytes, whole: bool) -> str | None:
    lines = head.split(b"\n")
    if not whole:
        lines.pop()  # where it ends is not known
    lines = [line for line in lines if line.strip()]
    if lines and _is_object(lines[0]):
        return None
    first = _first_value(head, whole)
    if first is None or first.kind not in b"{[":
        if not lines or any(line.lstrip()[:1] == b"{" for line in lines):
            return None
        start = lines[0].strip()[:40].decode("ascii", "replace").replace("\ufffd", "?")
        return f"lines that are no JSON objects (it starts with {start!a})"
    if first.kind == b"[":
        if first.broken or first.end is None or (whole and not head[first.end :].strip()):
            return "a JSON array"
        lists_records = re.match(rb"\s*\[\s*\{", head) and len(lines) > 1 and not _is_object(lines[1])
        return "JSON arrays, one on each line" if lists_records else None
    if first.broken:
        return "JSON written over several lines"
    tail = b"" if first.end is None else head[first.end :].partition(b"\n")[0].strip()
    if tail[:1] not in (b"{", b"[", b","):
        return None
    # The first line alone may be bad: the next one decides, where there is one.
    if _is_object(lines[1]) if len(lines) > 1 else lines and not whole:
        return None
    return "JSON objects with commas between them" if tail[:1] == b"," else "several JSON objects on one line"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


class _First(NamedTuple):
    """The first JSON value of a text."""

    kind: bytes
    """Its first byte."""
    end: int | None
    """Where it ends; None when it goes on beyond the text."""
    broken: bool
    """Whether a line ends inside it."""


_TOKEN = re.compile(
    rb'[ \t\r]*(?:(?P<line>\n)|(?P<open>[\[{])|(?P<close>[\]}])|(?P<mark>[,:])|(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")'
    rb"|(?P<word>-?[0-9][0-9.eE+-]*|true|false|null|NaN|-?Infinity))"
)
_CUT_OFF = re.compile(rb'[ \t\r]*(?:"(?:[^"\\\x00-\x1f]|\\.)*\\?|[-a-zA-Z]{0,9})')
"""What the last bytes of a text that is cut off may be."""


def _first_value(head: bytes, whole: bool) -> _First | None:
    """The first value, as far as it goes by the grammar of JSON; None where it does not."""
    stack: list[bytes] = []
    expected = "value"
    kind = b""
    broken = False
    at = 0
    while True:
        token = _TOKEN.match(head, at)
        if token is None:
            cut = _CUT_OFF.fullmatch(head, at)
            # The end of a file is no place to stop inside a line; a later one shows that lines do not count.
            return _First(kind, None, broken) if kind and cut and (broken or not whole) else None
        at, what = token.end(), token.lastgroup or ""
        if what == "line":
            broken = broken or bool(kind)
            continue
        text = token[what]
        kind = kind or text[:1]
        if what == "mark":
            if text == b":" and expected == ":":
                expected = "value"
            elif text == b"," and expected == "next":
                expected = "key" if stack[-1] == b"{" else "value"
            else:
                return None
            continue
        if what == "close":
            empty = "key or end" if text == b"}" else "value or end"
            if not stack or expected not in ("next", empty) or (stack[-1] == b"{") != (text == b"}"):
                return None
            stack.pop()
        elif expected in ("key", "key or end"):
            if what != "string":
                return None
            expected = ":"
            continue
        elif expected not in ("value", "value or end"):
            return None
        elif what == "open":
            if len(stack) >= DEEPEST:
                return None
            stack.append(text)
            expected = "key or end" if text == b"{" else "value or end"
            continue
        if not stack:
            return _First(kind, at, broken)
        expected = "next"
