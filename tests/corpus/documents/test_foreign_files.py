"""A file that is not what its name says (another format, a pointer) is named, wherever the product opens it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corpus.acquire import AcquireConfig
from corpus.acquire.local import list_local
from corpus.acquire.origins import FilesOrigin
from corpus.base.errors import UserError
from corpus.build import main
from corpus.catalogue.models import Source
from corpus.cleaning.decontamination.evalsets import find_files, read_examples
from corpus.documents.adapters import AlignedChoiceAdapter
from corpus.documents.joins import prepare
from corpus.documents.prepare import AlignedLines
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.documents.sniff import refuse_other_lines
from corpus.documents.units import WHOLE
from tests.conftest import documents, recipe_dict, write_jsonl

RECORDS = documents(30)
OBJECTS = [json.dumps(record) for record in RECORDS]
PAIRS = list(zip(OBJECTS[::2], OBJECTS[1::2], strict=True))
LINES = "".join(line + "\n" for line in OBJECTS).encode()


def read(path: Path, data: bytes, file_format: str = "jsonl", start: int = 0, end: int = WHOLE) -> list[str]:
    """Texts of the good records, reasons of the bad ones."""
    path.write_bytes(data)
    return [
        f"!{record.reason}" if isinstance(record, BadRecord) else record["text"]
        for _, record in read_piece(path, path.name, file_format, start, end, None)  # type: ignore[arg-type]
    ]


def archive(kind: str) -> bytes:
    """A zip or tar archive with the lines in it."""
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as packed:
            packed.writestr("x.jsonl", LINES)
    else:
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo("x.jsonl")
            info.size = len(LINES)
            tar.addfile(info, io.BytesIO(LINES))
    return out.getvalue()


def parquet(table: Any = None) -> bytes:
    """A parquet file."""
    out = io.BytesIO()
    pq.write_table(table or pa.table({"text": ["x"]}), out)
    return out.getvalue()


NOT_LINES: dict[str, tuple[bytes, str]] = {
    "array": (json.dumps(RECORDS).encode(), "a JSON array"),
    "array of one": (json.dumps(RECORDS[:1]).encode() + b"\n", "a JSON array"),
    "empty array": (b"[]", "a JSON array"),
    "array of texts": (json.dumps([record["text"] for record in RECORDS]).encode(), "a JSON array"),
    "array, one object on each line": (b"[\n" + ",\n".join(OBJECTS).encode() + b"\n]\n", "a JSON array"),
    "array of one object on a line": (b"[\n" + OBJECTS[0].encode() + b"\n]\n", "a JSON array"),
    "array, broken at commas": (b"[" + ",\n ".join(OBJECTS).encode() + b"]", "a JSON array"),
    "pretty array": (json.dumps(RECORDS, indent=2).encode(), "a JSON array"),
    "pretty array with a mark": (b"\xef\xbb\xbf" + json.dumps(RECORDS, indent=2).encode(), "a JSON array"),
    "arrays": (b"".join(f"[{a}, {b}]\n".encode() for a, b in PAIRS), "JSON arrays"),
    "pretty objects": ("\n".join(json.dumps(r, indent=1) for r in RECORDS).encode(), "over several lines"),
    "one pretty object": (json.dumps({"data": RECORDS}, indent="\t").encode(), "over several lines"),
    "pretty and Windows": (json.dumps(RECORDS[0], indent=1).replace("\n", "\r\n").encode(), "over several lines"),
    "objects on one line": (" ".join(OBJECTS).encode(), "several JSON objects on one line"),
    "objects without a space": ("".join(OBJECTS).encode() + b"\n", "several JSON objects on one line"),
    "two on each line": (b"".join(f"{a}{b}\n".encode() for a, b in PAIRS), "several JSON"),
    "carriage returns alone": ("\r".join(OBJECTS).encode(), "several JSON objects on one line"),
    "the inside of an array": (",\n".join(OBJECTS).encode(), "commas between them"),
    "csv": (b"text,score\n" + b"".join(b'"some words",0.5\n' for _ in range(9)), "no JSON objects"),
    "tsv": (b"1\tsome words\n2\tmore words\n", "no JSON objects"),
    "text": (b"It was a dark night.\n\n1\n\nThe end.\n", "no JSON objects"),
    "html": (b"<!DOCTYPE html>\n<html>Sign in</html>\n", "no JSON objects"),
    "yaml": (b"- text: some words\n- text: more\n", "no JSON objects"),
    "numbers": (b"1\n2\n3\n", "no JSON objects"),
    "utf-16": (LINES.decode().encode("utf-16"), "UTF-16"),
    "utf-16 without a mark": (LINES.decode().encode("utf-16-le"), "UTF-16"),
    "gzip": (gzip.compress(LINES), "gzip data"),
    "zstd": (zstandard.compress(LINES), "zstd data"),
    "bzip2": (bz2.compress(LINES), "bzip2 data"),
    "xz": (lzma.compress(LINES), "xz data"),
    "zip": (archive("zip"), "a zip archive"),
    "tar": (archive("tar"), "a tar archive"),
    "parquet": (parquet(), "a parquet file"),
}


@pytest.mark.parametrize("name", NOT_LINES)
def test_a_file_that_is_no_json_lines_is_named(tmp_path: Path, name: str) -> None:
    data, says = NOT_LINES[name]
    for path, content in ((tmp_path / "x.jsonl", data), (tmp_path / "x.jsonl.gz", gzip.compress(data))):
        with pytest.raises(UserError) as error:
            read(path, content)
        assert path.name in str(error.value) and says in str(error.value), error.value
    # A unit that starts in the middle knows it too.
    with pytest.raises(UserError, match=r"x\.jsonl"):
        read(tmp_path / "x.jsonl", data, "jsonl", len(data) // 2, len(data))


FIRST_LINES: dict[str, tuple[bytes, str | None]] = {
    "cut off in a string": (b'{"text": "cut of', "!invalid_json"),
    "cut off after a comma": (b'{"text": "cut",', "!invalid_json"),
    "cut off after a brace": (b"{", "!invalid_json"),
    "an array cut off": (b"[1, 2,", "!invalid_json"),
    "a list": (b'["a", "list"]', "!not_an_object"),
    "a list of objects": (b'[{"text": "x"}]', "!not_an_object"),
    "two objects": (b'{"text": "x"} {"text": "y"}', "!invalid_json"),
    "a comma after it": (b'{"text": "x"},', "!invalid_json"),
    "a string": (b'"text"', "!not_an_object"),
    "words": (b"some words", "!invalid_json"),
    "deep": (b"[" * 100_000, "!invalid_json"),
    "zeros": (bytes(100), "!invalid_json"),
    "a mark": (b'\xef\xbb\xbf{"text": "x"}', "!invalid_json"),
    "blank": (b"  \r", None),
    "an object with lists": (b'{"text": "x", "more": [1, {"a": [[]]}, -1.5e3, null, true, "\\"}\\n"]}', "x"),
}


@pytest.mark.parametrize("name", FIRST_LINES)
def test_one_bad_line_at_the_top_is_counted(tmp_path: Path, name: str) -> None:
    line, got = FIRST_LINES[name]
    wanted = [got] if got else []
    assert read(tmp_path / "x.jsonl", line + b"\n" + LINES) == [*wanted, *(record["text"] for record in RECORDS)]


def test_a_file_of_one_cut_off_line_is_counted(tmp_path: Path) -> None:
    assert read(tmp_path / "x.jsonl", b'{"text": "cut of') == ["!invalid_json"]
    assert read(tmp_path / "x.jsonl", b'{"text": "one"}') == ["one"]
    assert read(tmp_path / "x.jsonl", b"\n\n") == []


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        ).map(lambda value: {"x": value}),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
    st.integers(1, 200),
)
def test_json_lines_are_never_taken_for_anything_else(values: list[Any], ascii_only: bool, cut: int) -> None:
    data = "".join(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in values).encode()
    refuse_other_lines(data, True, "x.jsonl")
    refuse_other_lines(data[:cut], False, "x.jsonl")
    pretty = "\n".join(json.dumps(value, indent=1, ensure_ascii=ascii_only) for value in values).encode()
    with pytest.raises(UserError):
        refuse_other_lines(pretty, True, "x.jsonl")


@pytest.mark.parametrize("name", ["gzip", "zstd", "bzip2", "xz", "zip", "tar", "parquet"])
def test_a_text_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"x\.txt: is .*{name}"):
        read(tmp_path / "x.txt", NOT_LINES[name][0], "text")


def test_text_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    for data in ("wide".encode("utf-16"), "wide".encode("utf-16-le"), "wide".encode("utf-16-be"), b"caf\xe9"):
        assert read(tmp_path / "x.txt", data, "text") == ["!invalid_utf8"]
    for text in ("nul \0 inside", "\ufeffa mark", "", "a\0", "\r", "\ud7ff\U0010ffff"):
        assert read(tmp_path / "x.txt", text.encode(), "text") == [text]


def test_a_parquet_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for data, says in ((gzip.compress(parquet()), "gzip data"), (archive("zip"), "a zip archive")):
        with pytest.raises(UserError, match=rf"x\.parquet: is {says}"):
            read(path, data, "parquet")
    with pytest.raises(UserError, match="begins as text does"):
        read(path, LINES, "parquet")
    twins = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array([1]), pa.array([1])], ["text", "text", "n", "n"])
    with pytest.raises(UserError, match=r"x\.parquet: has 2 columns called 'text'"):
        read(path, parquet(twins), "parquet")
    path.write_bytes(parquet(twins.remove_column(0)))
    assert [record for _, record in read_piece(path, path.name, "parquet", 0, WHOLE, ["text"])] == [{"text": "b"}]


@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_encrypted_parquet_is_named_as_such(tmp_path: Path, plaintext_footer: bool) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc,name-defined]
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return key

        def unwrap_key(self, key: bytes, name: str) -> bytes:
            return key

    config = encryption.EncryptionConfiguration(
        footer_key="a", column_keys={"b": ["text"]}, plaintext_footer=plaintext_footer
    )
    properties = encryption.CryptoFactory(lambda _: Keys()).file_encryption_properties(
        encryption.KmsConnectionConfig(), config
    )
    path, table = tmp_path / "x.parquet", pa.table({"text": ["a"]})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=r"x\.parquet: is encrypted"):
        read(path, path.read_bytes(), "parquet")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 1234567\n"
POINTERS: dict[str, tuple[bytes, str]] = {
    "lfs": (LFS, "Git LFS pointer.*git lfs pull"),
    "lfs with an extension": (
        LFS.replace(b"\noid", b"\next-0-foo sha256:" + b"4d7a" * 16 + b"\noid"), "Git LFS pointer.*git lfs pull"
    ),
    "lfs on Windows": (LFS.replace(b"\n", b"\r\n"), "Git LFS pointer"),
    "old lfs": (LFS.replace(b"git-lfs.github.com", b"hawser.github.com"), "Git LFS pointer"),
    "annex": (b"/annex/objects/SHA256E-s31390--f50d7ac4c6b9.parquet\n", "git-annex pointer.*git annex get"),
    "annex link": (b"../.git/annex/objects/mJ/k2/MD5-s8--ab12/MD5-s8--ab12", "git-annex pointer"),
}  # fmt: skip


@pytest.mark.parametrize("pointer", POINTERS)
@pytest.mark.parametrize(
    "name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "x.jsonl.bz2", "x.jsonl.xz", "x.txt", "x.parquet"]
)
def test_a_pointer_is_not_the_file(tmp_path: Path, pointer: str, name: str) -> None:
    data, says = POINTERS[pointer]
    path = tmp_path / name
    file_format = {".txt": "text", ".parquet": "parquet"}.get(path.suffix, "jsonl")
    with pytest.raises(UserError, match=f"{name}: is a {says}"):
        read(path, data, file_format)
    with pytest.raises(UserError, match=f"{name}: is a {says}"):
        list(read_examples(path, []))


def test_a_text_about_pointers_is_a_text(tmp_path: Path) -> None:
    for text in (
        LFS + b"\nThat is how a pointer looks.\n",
        b"As in:\n" + LFS,
        LFS[:60],
        b"/annex/objects/ is a folder\n",
    ):
        assert read(tmp_path / "x.txt", text, "text") == [text.decode()]


def test_a_link_to_a_file_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    """As git-annex has it where links are supported."""
    write_jsonl(tmp_path / "a.jsonl", RECORDS)
    (tmp_path / "b.jsonl").symlink_to(".git/annex/objects/mJ/k2/MD5-s8--ab12/MD5-s8--ab12")
    config = AcquireConfig(tmp_path / "cache", base_dir=tmp_path)
    for pattern in ("*.jsonl", "b.jsonl"):
        with pytest.raises(UserError, match=r"b\.jsonl is a link to a file that is not there.*git annex get"):
            list_local(FilesOrigin(paths=[pattern]), config, "s")
        with pytest.raises(UserError, match=r"b\.jsonl is a link to a file that is not there"):
            find_files([str(tmp_path / pattern)])


JOINED: dict[str, Callable[[bytes], bytes]] = {
    "labels.lst": lambda data: LFS,
    "labels.lst.bz2": lambda data: bz2.compress(data) + b"garbage",
    "labels.lst.xz": lambda data: lzma.compress(data)[:-9],
    "labels.lst.gz": lambda data: gzip.compress(data)[:-9],
    "labels.lst.zst": lambda data: zstandard.compress(data)[:-9],
}


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("which", ["records", "labels"])
def test_files_that_are_joined_are_no_exception(tmp_path: Path, name: str, which: str) -> None:
    name = name.replace("labels.lst", "records.jsonl") if which == "records" else name
    good = {"records": LINES, "labels": b"0\n" * 30}
    files = {f"{part}.x": tmp_path / f"{part}.x" for part in good if part != which} | {name: tmp_path / name}
    for part, data in good.items():
        (tmp_path / f"{part}.x").write_bytes(data)
    (tmp_path / name).write_bytes(JOINED[name.replace("records.jsonl", "labels.lst")](good[which]))
    spec = AlignedLines(
        records=name if which == "records" else "records.x", labels=name if which == "labels" else "labels.x"
    )
    source = Source(
        title="joined", origin=FilesOrigin(paths=["*"]), prepare=spec, adapter=AlignedChoiceAdapter(), licence="x"
    )
    with pytest.raises(UserError, match=rf"{name}: .*(Git LFS pointer|cut off or damaged)"):
        prepare(source, files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [("array.json", "train"), ("pointer.jsonl", "train"), ("packed.jsonl", "train"), ("array.json", "file")],
)
def test_a_build_names_the_file_and_leaves_no_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, tokenizer: str
) -> None:
    data = {"array.json": NOT_LINES["array"][0], "pointer.jsonl": LFS, "packed.jsonl": gzip.compress(LINES)}[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    write_jsonl(tmp_path / "in" / "lines.jsonl", RECORDS)
    changes: dict[str, Any] = {}
    if tokenizer == "file":
        from tests.hub_fixtures import small_tokenizer

        (tmp_path / "tokenizer.json").write_bytes(small_tokenizer())
        changes["tokenizer"] = {"kind": "file", "path": "tokenizer.json", "bos_token": "<s>"}
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(recipe_dict({"a": ["in/*"]}, **changes), sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main([str(recipe), "--out", str(tmp_path / "data"), "--workers", "1"])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert ended.value.code == 2 and len(errors) == 1 and f"in/{name}: is " in errors[0]
    assert not list((tmp_path / "data").glob("streams/*/stream.json"))
