"""S3-compatible stores, against a local server; the extra is not needed for the rest."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from corpus.acquire import AcquireConfig, check, fetch, list_files, transfer
from corpus.acquire.origins import S3Origin
from corpus.base.errors import UserError

HAVE_S3 = all(importlib.util.find_spec(name) for name in ("s3fs", "moto", "flask"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "made-up",
        "AWS_SECRET_ACCESS_KEY": "made-up",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    client = boto3.client("s3")
    client.create_bucket(Bucket="corpus")
    yield client
    server.stop()


@pytest.mark.skipif(HAVE_S3, reason="s3fs is installed")
def test_without_the_extra_the_error_names_it(tmp_path, make_source):
    config = AcquireConfig(cache=tmp_path / "cache")
    with pytest.raises(UserError, match=r"needs s3fs.*mobilecorpus\[s3\]"):
        list_files(make_source(S3Origin(paths=["s3://corpus/*.jsonl"])), config)


@pytest.mark.skipif(not HAVE_S3, reason="needs s3fs and moto[server]")
def test_objects_are_listed_fetched_and_continued(bucket, tmp_path, make_source):
    big = bytes(range(256)) * 8192
    for key, data in {"data/a.jsonl": b"a", "data/deep/b.jsonl": big, "data/c.txt": b"no"}.items():
        bucket.put_object(Bucket="corpus", Key=key, Body=data)
    config = AcquireConfig(cache=tmp_path / "cache")
    source = make_source(S3Origin(paths=["s3://corpus/data/**/*.jsonl"]))
    listing = list_files(source, config)
    assert [(file.name, file.size) for file in listing.files] == [
        ("corpus/data/a.jsonl", 1),
        ("corpus/data/deep/b.jsonl", len(big)),
    ]
    assert fetch(source, listing, listing.files[0], config).read_bytes() == b"a"

    from corpus.acquire.remote import entry

    wanted = entry(source, listing, listing.files[1], config)
    wanted.partial.parent.mkdir(exist_ok=True)
    wanted.partial.write_bytes(b"stale")
    assert fetch(source, listing, listing.files[1], config).read_bytes() == big
    assert list_files(source, config) == listing
    bucket.put_object(Bucket="corpus", Key="data/a.jsonl", Body=b"b")
    other = AcquireConfig(cache=tmp_path / "other")
    with pytest.raises(UserError, match="was changed on the server"):
        fetch(source, listing, listing.files[0], other)


@pytest.mark.skipif(not HAVE_S3, reason="needs s3fs and moto[server]")
def test_missing_buckets_and_globs_without_a_bucket(bucket, tmp_path, make_source):
    config = AcquireConfig(cache=tmp_path / "cache")
    for path, problem in {
        "s3://none/data/a.jsonl": "no such object or bucket",
        "s3://corpus/none/*.jsonl": "no file matches",
        "s3://*/a.jsonl": "names no bucket",
        "https://corpus/a.jsonl": "not an s3:// path",
    }.items():
        result = check(make_source(S3Origin(paths=[path])), config)
        assert problem in (result.problem or ""), path
