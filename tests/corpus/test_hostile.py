"""Hostile and damaged input: a counted drop or one line naming file and record; never a traceback or a silent loss."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from corpus.acquire.origins import FilesOrigin
from corpus.base.errors import UserError
from corpus.build import main
from corpus.catalogue.models import Source
from corpus.documents.adapters import AlignedChoiceAdapter, MultipleChoiceAdapter
from corpus.documents.joins import prepare
from corpus.documents.prepare import AlignedLines
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord, Unreadable
from corpus.documents.units import WHOLE
from corpus.records.manifest import load_manifest
from tests.conftest import documents, recipe_dict, run_command, user_error, write_jsonl
from tests.loopback_hub import LoopbackHub

ErrorOf = Callable[..., str]


def zst(data: bytes) -> bytes:
    """One zstd frame."""
    return zstandard.ZstdCompressor().compress(data)


def zeros(pack: Any, megabytes: int) -> bytes:
    """So many megabytes of zeros, packed piece by piece."""
    return b"".join(pack.compress(bytes(1 << 20)) for _ in range(megabytes)) + pack.flush()


def write_recipe(folder: Path, sources: dict[str, list[str]], **changes: Any) -> Path:
    """A recipe over local files; a source may have keys of its own under `changes[name]`."""
    own = {name: changes.pop(name) for name in list(changes) if name in sources}
    recipe = recipe_dict(sources, **changes)
    for name, keys in own.items():
        recipe["sources"][name].update(keys)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def error_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> ErrorOf:
    """Runs a build in this process that must end in a user's error; returns its one line."""

    def run(recipe: Path | str | bytes, *options: str) -> str:
        path = tmp_path / "hostile.yaml"
        if isinstance(recipe, Path):
            path = recipe
        else:
            path.write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode())
        with pytest.raises(SystemExit) as ended:
            main([str(path), "--out", str(tmp_path / "data"), "--workers", "1", *options])
        assert ended.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert not list((tmp_path / "data").glob("streams/*/stream.json"))
        return lines[0]

    return run


def put_tiny_tokenizer(folder: Path) -> None:
    """A tokenizer whose tokens are the bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(["<s>"])
    folder.mkdir()
    (folder / "tokenizer.json").write_text(model.to_str())


HOSTILE_LINES: list[tuple[bytes, str | None]] = [
    (b'{"text": "cut off in the mid', "invalid_json"),
    (b'{"text": "\xff\xfe\xc3"}', "invalid_utf8"),
    (b'{"text": "\\ud800 alone"}', "invalid_json"),
    (b'{"text": "\xed\xa0\x80 alone, as bytes"}', "invalid_utf8"),
    (b'{"text": "nul \\u0000 inside"}', None),
    (b'{"text": "raw nul \x00 inside"}', "invalid_json"),
    (b"\x00" * 5000, "invalid_json"),
    (b'{"text": "x", "score": NaN}', "invalid_json"),
    (b'{"text": "x", "score": -Infinity}', "invalid_json"),
    (b'{"text": "big", "id": ' + b"9" * 300 + b"}", None),
    (b'{"text": "too big", "id": ' + b"9" * 6000 + b"}", "invalid_json"),
    (b'{"text": "bigger", "id": 1e99999}', "invalid_json"),
    (b'{"text": "first", "text": "second of one name"}', None),
    (b'{"text": "deep", "more": ' + b"[" * 900 + b"]" * 900 + b"}", None),
    (b'{"text": "too deep", "more": ' + b"[" * 90000 + b"]" * 90000 + b"}", "invalid_json"),
    (b"[" * 100_000, "invalid_json"),
    (b'["a", "list"]', "not_an_object"),
    (b'"a string"', "not_an_object"),
    (b"null", "not_an_object"),
    (b"{}", "missing_field"),
    (b'{"text": null}', "not_text"),
    (b'{"text": {"text": "x"}}', "not_text"),
    (b'{"text": ["x"]}', "not_text"),
    (b'{"text": 12}', "not_text"),
    (b'{"text": ""}', "empty"),
    (b'{"text": "windows line"}\r', None),
    (b" \t\r", ""),
    (b'{"text": "spaces around"}  ', None),
    (b'{"text": "<script>alert(1)</script>{text}%s${x}"}', None),
    (b'{"text": "' + b"a" * 70000 + b'"}', None),
    (b"{'text': 'python'}", "invalid_json"),
    (b'{"text": "trailing",}', "invalid_json"),
    (b'{"text": "two"} {"text": "records"}', "invalid_json"),
]
"""(line, reason it is dropped for; None when it is kept, '' when it is no record at all)."""


def test_hostile_records_are_dropped_and_counted_by_a_build(tmp_path: Path) -> None:
    good = b"".join(json.dumps(document).encode() + b"\n" for document in documents(40))
    put_tiny_tokenizer(tmp_path / "tok")
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "lines.jsonl").write_bytes(good + b"\n".join(line for line, _ in HOSTILE_LINES))
    (folder / "empty.jsonl").touch()
    (folder / "empty.jsonl.gz").touch()
    (folder / "mark.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "after a byte order mark"}\n{"text": "and more"}\n')
    (folder / "bomb.jsonl.gz").write_bytes(zeros(gzip_object(), 130))
    (folder / "bomb.jsonl.zst").write_bytes(zeros(zstandard.ZstdCompressor().compressobj(), 130) + zst(b"\n" + good))
    columns = tmp_path / "columns"
    columns.mkdir()
    texts = [document["text"] for document in documents(40, seed=3)]
    pq.write_table(pa.table({"text": texts}), columns / "good.parquet")
    pq.write_table(pa.table({"body": texts}), columns / "other.parquet")
    pq.write_table(pa.table({"text": list(range(40))}), columns / "numbers.parquet")
    not_utf8 = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"fine"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": not_utf8}), columns / "bytes.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), columns / "none.parquet")
    recipe = write_recipe(tmp_path, {"hostile": ["hostile/*"], "columns": ["columns/*"]}, columns={"format": "parquet"})
    result = run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--workers", "2")
    assert result.returncode == 0, result.stderr[-3000:]
    sources = load_manifest(tmp_path / "data" / "small").sources

    reasons = [reason for _, reason in HOSTILE_LINES if reason]
    wanted = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    wanted["invalid_json"] += 1  # the line with the mark
    wanted["too_large"] = 2
    kept = 40 + sum(reason is None for _, reason in HOSTILE_LINES) + 1 + 40
    found = sources["hostile"].documents
    assert (found.dropped, found.kept) == (dict(sorted(wanted.items())), kept)
    found = sources["columns"].documents
    assert (found.kept, found.dropped) == (41, {"invalid_utf8": 1, "missing_field": 40, "not_text": 40})


def gzip_object() -> Any:
    """A compressor that writes a gzip file."""
    import zlib

    return zlib.compressobj(1, zlib.DEFLATED, 31)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut.jsonl.gz": lambda data: gzip.compress(data)[:-9],
    "cut.jsonl.zst": lambda data: zst(data)[:-9],
    "cut.jsonl.bz2": lambda data: bz2.compress(data)[:-9],
    "cut.jsonl.xz": lambda data: lzma.compress(data)[:-9],
    "plain.jsonl.gz": lambda data: data,
    "plain.jsonl.zst": lambda data: data,
    "plain.parquet": lambda data: data,
    "cut.parquet": lambda data: parquet_bytes()[:-9],
    "empty.parquet": lambda data: b"",
}


def parquet_bytes() -> bytes:
    """A whole parquet file in several row groups."""
    sink = pa.BufferOutputStream()
    table = pa.table({"text": [document["text"] for document in documents(200)], "n": list(range(200))})
    pq.write_table(table, sink, row_group_size=50)
    return bytes(sink.getvalue())


def test_damaged_files_fail_a_build_and_leave_no_complete_stream(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "good.jsonl", documents(200)).read_bytes()
    names = {f"s{n}": name for n, name in enumerate(DAMAGE)}
    for name, damage in DAMAGE.items():
        (tmp_path / name).write_bytes(damage(data))
    put_tiny_tokenizer(tmp_path / "tok")
    recipe = write_recipe(
        tmp_path,
        {"good": ["good.jsonl"], **{source: [name] for source, name in names.items()}},
        tokenizer={"kind": "file", "path": "tok", "bos_token": "<s>"},
        unit_bytes=1 << 20,
        **{source: {"format": "parquet"} for source, name in names.items() if name.endswith("parquet")},
    )
    command = ["-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--workers", "2"]
    line = user_error(run_command(*command))
    assert f"({len(DAMAGE) - 1} more units failed)" in line
    assert "cut.jsonl.gz: the file is cut off or damaged" in line
    assert [path.parent.name[:4] for path in (tmp_path / "data").glob("streams/*/stream.json")] == ["good"]
    assert not (tmp_path / "data" / "small").exists()


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    data = write_jsonl(tmp_path / "good.jsonl", documents(200)).read_bytes()
    (tmp_path / name).write_bytes(DAMAGE[name](data))
    file_format = "parquet" if name.endswith("parquet") else "jsonl"
    with pytest.raises(UserError, match="cut off or damaged") as error:
        list(read_piece(tmp_path / name, name, file_format, 0, WHOLE, None))
    assert error.value.where == name


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.xz", ".parquet"])
def test_changed_bytes_never_end_in_another_exception(tmp_path: Path, ending: str) -> None:
    data = write_jsonl(tmp_path / "good.jsonl", documents(200)).read_bytes()
    pack = {".jsonl.gz": gzip.compress, ".jsonl.zst": zst, ".jsonl.bz2": bz2.compress, ".jsonl.xz": lzma.compress}
    whole = pack[ending](data) if ending in pack else parquet_bytes()
    rng = random.Random(ending)
    refused = 0
    for _ in range(60):
        bad = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] ^= rng.randint(1, 255)
        path = tmp_path / f"x{ending}"
        path.write_bytes(bad)
        try:
            records = list(read_piece(path, path.name, "jsonl" if "jsonl" in ending else "parquet", 0, WHOLE, None))
            assert all(isinstance(record, dict | BadRecord) for _, record in records)
        except UserError as error:
            refused += 1
            assert error.where == path.name
    assert refused > 20


READER = """
import resource, sys
from pathlib import Path
from corpus.documents.record import BadRecord, Unreadable
from corpus.documents.read import read_piece
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pieces = read_piece(path, path.name, sys.argv[2], 0, -1, None)
records = [record.reason if isinstance(record, BadRecord) else record["text"] for _, record in pieces]
print(records, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", ["line.jsonl", "bomb.jsonl.gz", "bomb.jsonl.zst", "bomb.txt.zst"])
def test_memory_stays_bounded(tmp_path: Path, name: str) -> None:
    """A line of 200 MB, and 300 MB of zeros in a few hundred kilobytes, are dropped in bounded memory."""
    path = tmp_path / name
    tail = b'\n{"text": "next"}\n'
    if name == "line.jsonl":
        with path.open("wb") as file:
            file.write(b'{"text": "')
            for _ in range(200):
                file.write(b"x" * 1_000_000)
            file.write(b'"}' + tail)
    elif name.endswith("gz"):
        path.write_bytes(zeros(gzip_object(), 300) + gzip.compress(tail))
    else:
        path.write_bytes(zeros(zstandard.ZstdCompressor().compressobj(), 300) + zst(tail))
    file_format = "text" if ".txt" in name else "jsonl"
    result = run_command("-c", READER, str(path), file_format)
    assert result.returncode == 0, result.stderr
    records, megabytes = result.stdout.rsplit(" ", 1)
    assert records == ("['too_large']" if file_format == "text" else "['too_large', 'next']")
    assert int(megabytes) < 400


def test_a_text_file_in_zstd_is_read_whole(tmp_path: Path) -> None:
    text = "".join(random.Random(1).choices("abcdefghijklmnop \n", k=3_000_000))
    path = tmp_path / "book.txt.zst"
    path.write_bytes(zst(text.encode()))
    [(_, record)] = read_piece(path, path.name, "text", 0, WHOLE, None)
    assert isinstance(record, dict) and record["text"] == text


def test_a_parquet_value_beyond_the_limit_or_beyond_python_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.documents.parquet.MAX_RECORD_BYTES", 100_000)
    path = tmp_path / "x.parquet"
    dates = pa.array([0, 2**62, 0, 0], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a", "b", "z" * 200_000, "c"], "date": dates}), path)
    records = [record for _, record in read_piece(path, path.name, "parquet", 0, WHOLE, None)]
    got = [record.reason if isinstance(record, BadRecord) else record["text"] for record in records]
    assert got == ["a", "b", "too_large", "c"]
    assert isinstance(records[1], dict) and records[1]["date"] == Unreadable("invalid_value")
    pq.write_table(pa.table({}), path)
    assert list(read_piece(path, path.name, "parquet", 0, path.stat().st_size, ["text"])) == []


def test_labels_of_thousands_of_digits_are_dropped() -> None:
    long = "9" * 5000
    record = {"goal": "g", "sol1": "a", "sol2": "b", "label": long}
    with pytest.raises(BadRecord, match="unknown_answer_key"):
        AlignedChoiceAdapter().function()(record)
    choices = {"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": long}
    with pytest.raises(BadRecord, match="unknown_answer_key"):
        MultipleChoiceAdapter().function()(choices)


def test_joining_goes_on_past_records_that_json_cannot_hold(tmp_path: Path) -> None:
    deep = b'{"goal": "g", "sol1": "a", "sol2": "b", "more": ' + b"[" * 900 + b"]" * 900 + b"}\n"
    (tmp_path / "r.jsonl").write_bytes(deep + b'{"goal": "\xff"}\n{"goal": "h", "sol1": "a", "sol2": "b"}\n')
    (tmp_path / "l.lst").write_bytes(b"0\n1\n\xff\n")
    source = Source(
        title="joined",
        origin=FilesOrigin(paths=["*"]),
        prepare=AlignedLines(records="r.jsonl", labels="l.lst"),
        adapter=AlignedChoiceAdapter(),
        licence="x",
    )
    files = {name: tmp_path / name for name in ("r.jsonl", "l.lst")}
    [part] = prepare(source, files, tmp_path / "out")
    rows = [json.loads(line) for line in part.read_text().splitlines()]
    assert rows == [{}, {"label": "1"}, {"goal": "h", "label": "\ufffd", "sol1": "a", "sol2": "b"}]


BASE = yaml.safe_dump(recipe_dict({"a": ["a.jsonl"]}), sort_keys=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "aliases"),
        ("a: " + "[" * 100_000, "not valid YAML"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "not valid YAML"),
        ("\n".join(" " * depth + "a:" for depth in range(2500)), "not valid YAML"),
        ("a: !!python/object/apply:os.system ['echo broken']\n", "could not determine a constructor"),
        ("!!python/name:os.system x: 1\n", "could not determine a constructor"),
        (BASE.replace("tokens: 2560", f"tokens: {'9' * 6000}"), "Exceeds the limit"),
        (BASE.replace("tokens: 2560", f"tokens: 256{'0' * 300}"), "less than or equal"),
        (BASE.replace("tokens: 2560", "tokens: .inf"), "finite"),
        (BASE.replace("weight: 1.0", "weight: .inf"), "finite"),
        (BASE.replace("weight: 1.0", "weight: .nan"), "mixture.a.weight"),
        (BASE.replace("lr: 0.001", "lr: .inf"), "finite"),
        (BASE + "name: again\n", "appears twice"),
        (BASE + "1: 2\n", "key '1'"),
        (BASE + "? [a, b]\n: 3\n", "unhashable"),
        (BASE + "\0", "not valid YAML"),
        (BASE.encode("utf-16"), "cannot be read"),
        (b"name: caf\xe9\n", "cannot be read"),
        (BASE.replace("name: small", "name: ../../small"), "match pattern"),
        (BASE.replace("name: small", "name: 2024-99-99"), "not valid YAML"),
        (BASE + "---\n" + BASE, "another document"),
        ("x: " + "a" * 5_000_000, "larger than 4 MiB"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
    ],
    ids=range(24),
)
def test_hostile_recipes_are_refused_in_one_line(error_of: ErrorOf, text: str | bytes, says: str) -> None:
    assert says in error_of(text)


def test_a_billion_laughs_through_the_command(tmp_path: Path) -> None:
    levels = ["a0: &a0 [lol, lol]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(levels))
    line = user_error(run_command("-m", "corpus.build", str(path), timeout=60))
    assert "laughs.yaml:2" in line and "aliases" in line


@pytest.mark.parametrize(
    "pattern", ["../outside.jsonl", "sub/../../outside.jsonl", "a\0.jsonl", "**/../*.jsonl", "absent*"]
)
def test_local_globs_do_not_leave_their_folder(tmp_path: Path, error_of: ErrorOf, pattern: str) -> None:
    write_jsonl(tmp_path / "outside.jsonl", documents(3))
    folder = tmp_path / "recipes"
    (folder / "sub").mkdir(parents=True)
    line = error_of(write_recipe(folder, {"a": [pattern]}))
    assert "'..' or NUL" in line or "no file matches" in line


@pytest.mark.parametrize(
    "name",
    [
        "../../../escape.jsonl",
        "data/../../x.jsonl",
        "/abs.jsonl",
        "data/a\nb.jsonl",
        "data/\ud800.jsonl",
        "data/" + "n" * 300 + ".jsonl",
    ],
)
def test_names_a_hub_lists_do_not_leave_the_cache(
    tmp_path: Path, error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with LoopbackHub(tmp_path / "hub") as hub:
        for variable, value in hub.environment().items():
            monkeypatch.setenv(variable, value)
        lines = write_jsonl(tmp_path / "a.jsonl", documents(50)).read_bytes()
        hub.add_dataset("org/evil", {"data/good.jsonl": lines})
        repo = hub.repos["datasets", "org/evil"]
        repo.files[name] = repo.files["data/good.jsonl"]
        origin = {"kind": "hub", "repo": "org/evil", "revision": "main", "files": ["**"]}
        before = {path for path in tmp_path.rglob("*") if "data" not in path.relative_to(tmp_path).parts[:1]}
        line = error_of(write_recipe(tmp_path, {"evil": ["x"]}, evil={"origin": origin}))
    assert "refusing the file name" in line
    after = {path for path in tmp_path.rglob("*") if "data" not in path.relative_to(tmp_path).parts[:1]}
    assert after - before <= {tmp_path / "small.yaml"}


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        ({"kind": "hub", "repo": "org/..", "revision": "main", "files": ["*"]}, ""),
        ({"kind": "hub", "repo": "../../etc", "revision": "main", "files": ["*"]}, "match pattern"),
        ({"kind": "hub", "repo": "org/good", "revision": "../../main", "files": ["*"]}, "no revision"),
        ({"kind": "hub", "repo": "org/good", "revision": "main", "files": ["../*"]}, "cannot be read"),
        ({"kind": "urls", "urls": ["https://example.org/a/%2e%2e/%2e%2e/%2e%2e/x.jsonl"]}, "refusing the file name"),
        ({"kind": "urls", "urls": ["file:///etc/passwd"]}, "not an http(s) URL"),
        ({"kind": "urls", "urls": ["https://example.org/{0..99999999}.jsonl"]}, "too long"),
        ({"kind": "urls", "url_list": "https://example.org/list.txt"}, "refusing the file name"),
    ],
    ids=range(8),
)
def test_origins_that_point_elsewhere_are_refused(
    tmp_path: Path, error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any], says: str
) -> None:
    with LoopbackHub(tmp_path / "hub") as hub:
        for variable, value in hub.environment().items():
            monkeypatch.setenv(variable, value)
        hub.add_dataset("org/good", {"a.jsonl": b'{"text": "x"}\n'})
        hub.add_url("https://example.org/list.txt", b"https://example.org/../../x.jsonl\n")
        assert says in error_of(write_recipe(tmp_path, {"evil": ["x"]}, evil={"origin": origin}))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"model": 3}', b'{"model": {"vocab": {"a": 0}}}', b"[" * 100_000, b"null"],
    ids=range(8),
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, error_of: ErrorOf, content: bytes) -> None:
    write_jsonl(tmp_path / "a.jsonl", documents(50))
    (tmp_path / "tokenizer.json").write_bytes(content)
    recipe = write_recipe(tmp_path, {"a": ["a.jsonl"]}, tokenizer={"kind": "file", "path": "tokenizer.json"})
    error_of(recipe)


def test_records_are_never_run_as_code(tmp_path: Path) -> None:
    """Nothing in the reader unpickles: a pickle in the place of a file is refused, or invalid lines."""
    import pickle

    path = tmp_path / "x.jsonl"
    path.write_bytes(pickle.dumps(sys.version))
    with pytest.raises(UserError, match=r"x\.jsonl: is not JSON lines"):
        list(read_piece(path, path.name, "jsonl", 0, WHOLE, None))
    path.write_bytes(b'{"text": "good"}\n' + pickle.dumps(sys.version))
    records = [record for _, record in read_piece(path, path.name, "jsonl", 0, WHOLE, None)]
    assert records[0] == {"text": "good"} and all(isinstance(record, BadRecord) for record in records[1:])
