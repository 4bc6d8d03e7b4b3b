"""Local files, mirrors, generated text, and names that must not be believed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest

from corpus.acquire import AcquireConfig, check, embedded, fetch, hashes, list_files, release
from corpus.acquire.names import glob_regex, safe_name, select
from corpus.acquire.origins import EmbeddedOrigin, FilesOrigin, HubOrigin, S3Origin, UrlsOrigin
from corpus.base.errors import UserError


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_files_are_listed_by_name_with_hash_and_fetched_in_place(tmp_path, config, make_source):
    write(tmp_path / "text/b.jsonl", b"two")
    write(tmp_path / "text/deep/a.jsonl", b"one")
    write(tmp_path / "text/c.txt", b"no")
    source = make_source(FilesOrigin(paths=["text/**/*.jsonl"]))
    listing = list_files(source, config)
    assert [file.name for file in listing.files] == ["text/b.jsonl", "text/deep/a.jsonl"]
    assert listing.files[0].digest == f"sha256:{hashlib.sha256(b'two').hexdigest()}"
    assert fetch(source, listing, listing.files[1], config) == tmp_path / "text/deep/a.jsonl"
    release(source, listing.files[1], config)
    assert (tmp_path / "text/deep/a.jsonl").exists()
    assert pickle.loads(pickle.dumps((source, listing, config))) == (source, listing, config)  # noqa: S301


def test_revision_follows_contents_and_not_the_place(tmp_path, make_source):
    def revision(folder: str, data: bytes, pattern: str) -> str:
        base = tmp_path / folder
        write(base / "x/a.jsonl", data)
        source = make_source(FilesOrigin(paths=[pattern.format(base=base)]))
        return list_files(source, AcquireConfig(cache=tmp_path / "cache", base_dir=base)).revision

    assert revision("one", b"same", "x/*") == revision("two", b"same", "x/*") != revision("three", b"diff", "x/*")
    # An absolute pattern's names start below it, so they tell nothing of the machine either.
    far = AcquireConfig(cache=tmp_path / "cache", base_dir=tmp_path / "elsewhere")
    listing = list_files(make_source(FilesOrigin(paths=[f"{tmp_path}/one/x/*", f"{tmp_path}/two/x/*"])), far)
    assert [file.name for file in listing.files] == ["one/x/a.jsonl", "two/x/a.jsonl"]


def test_a_rewritten_file_of_the_same_size_is_noticed(tmp_path, config, make_source):
    path = write(tmp_path / "a.jsonl", b"one")
    source = make_source(FilesOrigin(paths=["a.jsonl"]))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    first = list_files(source, config)
    path.write_bytes(b"two")
    assert list_files(source, config).revision != first.revision
    assert list_files(source, config).files[0].digest == f"sha256:{hashlib.sha256(b'two').hexdigest()}"
    path.write_bytes(b"longer")
    with pytest.raises(UserError, match="6 bytes, but had 3"):
        fetch(source, first, first.files[0], config)


def test_files_are_hashed_once_whatever_else_is_listed_in_their_folder(tmp_path, config, make_source, monkeypatch):
    for name in ("a", "b", "c"):
        os.utime(write(tmp_path / f"{name}.jsonl", name.encode()), (1_000_000_000, 1_000_000_000))
    hashed: list[str] = []
    real = hashes._sha256
    monkeypatch.setattr(hashes, "_sha256", lambda path: (hashed.append(path.name), real(path))[1])
    for pattern in ("a.jsonl", "[bc].jsonl", "*.jsonl"):
        list_files(make_source(FilesOrigin(paths=[pattern])), config)
    assert sorted(hashed) == ["a.jsonl", "b.jsonl", "c.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [("../*.jsonl", r"'\.\.'"), ("none/*.jsonl", "no file matches"), ("a\0b", "NUL"), ("links/*", "leads out")],
)
def test_local_patterns_that_are_refused(tmp_path, config, make_source, pattern, problem):
    write(tmp_path / "secret", b"x")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=problem):
        list_files(make_source(FilesOrigin(paths=[pattern])), config)


def test_a_symlink_that_is_named_is_followed_and_one_file_counts_once(tmp_path, config, make_source):
    write(tmp_path / "real/a.jsonl", b"x")
    (tmp_path / "alias.jsonl").symlink_to(tmp_path / "real/a.jsonl")
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    source = make_source(FilesOrigin(paths=["alias.jsonl"]))
    assert [file.name for file in list_files(source, config).files] == ["alias.jsonl"]
    source = make_source(FilesOrigin(paths=["real/**/*.jsonl"]))
    assert [file.name for file in list_files(source, config).files] == ["real/a.jsonl"]


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a\\b", "a\0b", "a\nb", "x" * 300, "a/" * 600 + "b", "\ud800"],
)
def test_hostile_names_are_refused(name):
    with pytest.raises(UserError, match="refusing the file name"):
        safe_name(name, "source")


def test_globs_keep_to_folders():
    names = ["a.gz", "d/a.gz", "d/e/a.gz", "d/b.txt", "d/a[1].gz"]
    assert select(names, ["*.gz"], [], "s") == ["a.gz"]
    assert select(names, ["d/**/*.gz"], ["**/*[[]*"], "s") == ["d/a.gz", "d/e/a.gz"]
    assert select(names, ["**/a.gz"], [], "s") == ["a.gz", "d/a.gz", "d/e/a.gz"]
    assert select(names, ["?/[!b].gz"], [], "s") == ["d/a.gz"]
    assert select(names, ["d/**"], [], "s") == ["d/a.gz", "d/a[1].gz", "d/b.txt", "d/e/a.gz"]
    assert not glob_regex("a[!b]c").fullmatch("a/c")
    with pytest.raises(UserError, match=r"no file matches 'x/\*'.*There is: "):
        select(names, ["a.gz", "x/*"], [], "s")
    with pytest.raises(UserError, match="leaves no file"):
        select(names, ["a.gz"], ["a*"], "s")


def test_a_mirror_replaces_hub_urls_and_s3(tmp_path, make_source):
    mirror = tmp_path / "mirror"
    write(mirror / "datasets/org/name/data/a.jsonl", b"hub")
    write(mirror / "urls/host.example/list.txt", b"dir/x.jsonl\n# no\nhttps://host.example/dir/y.txt\n")
    write(mirror / "urls/host.example/dir/x.jsonl", b"url")
    write(mirror / "s3/bucket/key/o.jsonl", b"s3")
    config = AcquireConfig(cache=tmp_path / "cache", mirror=mirror)
    commit = "0123456789" * 4
    sources = [
        make_source(HubOrigin(repo="org/name", revision=commit, files=["data/*.jsonl"])),
        make_source(UrlsOrigin(url_list="https://host.example/list.txt", match="*.jsonl")),
        make_source(S3Origin(paths=["s3://bucket/**/*.jsonl"])),
    ]
    listings = [list_files(source, config) for source in sources]
    assert listings[0].revision == commit
    assert [listing.files[0].name for listing in listings] == ["data/a.jsonl", "dir/x.jsonl", "bucket/key/o.jsonl"]
    texts = [
        fetch(source, listing, listing.files[0], config).read_bytes()
        for source, listing in zip(sources, listings, strict=True)
    ]
    assert texts == [b"hub", b"url", b"s3"]
    missing = make_source(HubOrigin(repo="org/other", revision=commit, files=["*"]))
    assert "no such folder" in (check(missing, config).problem or "")
    absent = make_source(UrlsOrigin(urls=["https://host.example/dir/z.jsonl"]))
    assert "missing from the mirror" in (check(absent, config).problem or "")


def test_embedded_text_is_written_once_and_is_the_same_every_time(tmp_path, config, make_source):
    source = make_source(EmbeddedOrigin(name="stdlib_code"))
    listing = list_files(source, config)
    path = fetch(source, listing, listing.files[0], config)
    assert listing.files[0].name == "part-00000.jsonl"
    before = path.stat().st_mtime_ns
    assert list_files(source, config) == listing
    assert path.stat().st_mtime_ns == before
    path.write_bytes(b"damaged")
    assert list_files(source, config) == listing
    assert path.stat().st_size == listing.files[0].size
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    paths = [record["path"] for record in records]
    assert paths == sorted(set(paths))
    assert "json/__init__.py" in paths
    assert not any("site-packages" in path for path in paths)
    assert sum(len(record["text"]) for record in records) > 8_000_000


def test_questions_about_the_library_are_answered_by_its_docstrings():
    records = list(embedded.records("docstring_qa"))
    assert len({record["id"] for record in records}) == len(records) > 2000
    (answer,) = [record["text"] for record in records if "`json.dumps(" in record["text"]]
    assert answer.startswith("Question: What does `json.dumps(obj, *, skipkeys=False, ")
    assert "\nAnswer: Serialize ``obj`` to a JSON formatted" in answer
    assert any("`logging.Logger.info(msg, *args, **kwargs)`" in record["text"] for record in records)


def test_reference_docs_have_topics_modules_and_packages_without_repeats():
    records = list(embedded.records("reference_docs"))
    assert {record["id"].split("/")[0] for record in records} >= {"topics", "modules", "packages"}
    assert len({record["text"] for record in records}) == len(records)
    assert sum(len(record["text"]) for record in records) > 1_000_000
