"""S3-compatible stores, against a local server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from corpus.acquire import AcquireConfig, check, fetch, list_files, objects, transfer
from corpus.acquire.origins import S3Origin
from corpus.acquire.remote import entry
from corpus.base.errors import UserError


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

    wanted = entry(source, listing, listing.files[1], config)
    wanted.partial.path.parent.mkdir(exist_ok=True)
    wanted.partial.path.write_bytes(b"stale")
    assert fetch(source, listing, listing.files[1], config).read_bytes() == big
    assert list_files(source, config) == listing
    bucket.put_object(Bucket="corpus", Key="data/a.jsonl", Body=b"b")
    other = AcquireConfig(cache=tmp_path / "other")
    with pytest.raises(UserError, match="was changed on the server"):
        fetch(source, listing, listing.files[0], other)


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


def test_a_part_of_an_object_is_continued_while_it_is_the_same(bucket, tmp_path, make_source):
    bucket.put_object(Bucket="corpus", Key="big.jsonl", Body=bytes(range(256)) * 8192)
    config = AcquireConfig(cache=tmp_path / "cache")
    source = make_source(S3Origin(paths=["s3://corpus/big.jsonl"]))
    listing = list_files(source, config)
    partial = entry(source, listing, listing.files[0], config).partial
    partial.path.parent.mkdir(parents=True)
    partial.path.write_bytes(bytes(range(256)))
    partial.note(listing.files[0].digest.removeprefix("etag:"))
    with objects.open_at(listing.files[0].url, "s", 256, partial.validator) as body:
        assert (body.start, next(body.chunks)[:3]) == (256, bytes((0, 1, 2)))
    assert fetch(source, listing, listing.files[0], config).read_bytes() == bytes(range(256)) * 8192
    bucket.put_object(Bucket="corpus", Key="big.jsonl", Body=b"other")
    with objects.open_at(listing.files[0].url, "s", 256, partial.validator or '"old"') as body:
        assert (body.start, b"".join(body.chunks)) == (0, b"other")


def test_public_buckets_need_no_login_and_closed_ones_say_so(bucket, tmp_path, make_source, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    bucket.put_object(Bucket="corpus", Key="public/a.jsonl", Body=b"a")
    objects._client_of.cache_clear()
    source = make_source(S3Origin(paths=["s3://corpus/public/*.jsonl"]))
    assert len(list_files(source, AcquireConfig(cache=tmp_path / "cache")).files) == 1
    objects._client_of.cache_clear()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match=r"nobody.*AWS_PROFILE"):
        list_files(source, AcquireConfig(cache=tmp_path / "other"))
