"""Builds into an S3-compatible store: a moto server on loopback that can fail requests, cut answers and stand still."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus.streams import upload as uploads
from tests.conftest import ROOT, documents, environment, recipe_dict, run_command, user_error, write_jsonl
from tests.corpus.test_build import build, tree_hashes
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("boto3", "moto", "flask")),
    reason="boto3 and moto[server] are not installed",
)


class Store:
    """A moto server behind a gate. ``fail_every``: each n-th request fails; ``hold_after``: PUTs that get through."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.moto = DomainDispatcherApplication(create_backend_app)
        self.fail_every = 0
        self.hold_after: int | None = None
        self.denied: set[str] = set()
        """Sub-resources of buckets that the store does not answer for."""
        self.puts: list[str] = []
        self.failed = self._requests = 0
        self.holding, self._lock = threading.Event(), threading.Lock()
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.server.server_port}"
        self.settings = {
            "AWS_ENDPOINT_URL_S3": url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """A WSGI application."""
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ.get("QUERY_STRING", "").rstrip("=") in self.denied:
            start_response("501 Not Implemented", [("Content-Type", "application/xml")])
            return [b"<Error><Code>NotImplemented</Code></Error>"]
        with self._lock:
            self._requests += 1
            fails = self.fail_every and self._requests % self.fail_every == 0
            self.failed += bool(fails)
            is_object = method == "PUT" and path.count("/") > 1
            held = is_object and self.hold_after is not None and len(self.puts) >= self.hold_after
        if held:
            self.holding.set()
            threading.Event().wait(20)
        if fails and method != "GET":
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"]
        import io

        environ["wsgi.input"] = io.BytesIO(body)
        if fails:  # an answer cut off in the middle
            whole: list[Any] = []
            content = b"".join(self.moto(environ, lambda *head: whole.append(head)))
            start_response(*whole[0])
            return [content[: len(content) // 2]]
        answer = self.moto(environ, start_response)
        if is_object and not held:
            with self._lock:
                self.puts.append(path)
        return answer

    def bucket(self, name: str) -> Any:
        """Create a bucket; returns a boto3 client."""
        client = self.client()
        client.create_bucket(Bucket=name)
        return client

    def client(self) -> Any:
        """A boto3 client of this store."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.settings["AWS_ENDPOINT_URL_S3"], region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",  # noqa: S106
        )  # fmt: skip

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """One server for all tests; each uses its own bucket."""
    started = Store()
    yield started
    started.server.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recipe, data folder of its local build)."""
    folder = tmp_path_factory.mktemp("local")
    write_jsonl(folder / "a.jsonl", documents(300, seed=1))
    write_jsonl(folder / "b.jsonl", documents(60, seed=2))
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(recipe_dict({"a": ["a.jsonl"], "b": ["b.jsonl"]}, unit_bytes=20_000)))
    build(recipe, folder / "data")
    return recipe, folder / "data"


def upload(recipe: Path, store: Store, bucket: str, work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the build command with ``--out s3://``."""
    arguments = ["--out", f"s3://{bucket}/here", "--work", str(work), "--workers", "2", *options]
    return run_command("-m", "corpus.build", str(recipe), *arguments, **store.settings)


def same_as_local(store: Store, bucket: str, data: Path) -> None:
    """The store holds the streams, manifest, report and tokenizer of the local build, byte for byte."""
    held = store.objects(bucket)
    streams = {
        key.removeprefix("here/streams/"): hashlib.sha256(content).hexdigest()
        for key, content in held.items()
        if key.startswith("here/streams/")
    }
    assert streams == tree_hashes(data)
    stored, wanted = (
        json.loads(text) for text in (held["here/small/manifest.json"], (data / "small/manifest.json").read_bytes())
    )
    assert stored["fingerprint"] == wanted["fingerprint"]
    assert "here/small/report.html" in held
    assert f"here/{stored['tokenizer']['path']}/tokenizer.json" in held


def test_a_store_that_fails_one_request_in_ten_gets_the_same_bytes(
    local: tuple[Path, Path], store: Store, tmp_path: Path
) -> None:
    recipe, data = local
    store.bucket("flaky")
    shutil.copytree(data, tmp_path / "work")  # what is built already is not built again
    store.fail_every = 10
    try:
        before = store.failed
        result = upload(recipe, store, "flaky", tmp_path / "work")
        assert result.returncode == 0, result.stderr
        verified = run_command("-m", "corpus.inspect", "s3://flaky/here/small", "--verify", **store.settings)
        assert store.failed - before >= 4
    finally:
        store.fail_every = 0
    assert verified.returncode == 0 and verified.stdout.count("every shard matches") == 2, verified.stderr
    same_as_local(store, "flaky", data)
    # Nothing is uploaded again but what differs: the manifest and its report tell how long the build took.
    store.puts.clear()
    assert upload(recipe, store, "flaky", tmp_path / "work").returncode == 0
    assert {path.rsplit("/", 1)[1] for path in store.puts} <= {"manifest.json", "report.html"}


def test_a_killed_upload_goes_on_and_calls_nothing_complete_before(
    local: tuple[Path, Path], store: Store, tmp_path: Path
) -> None:
    recipe, data = local
    store.bucket("killed")
    shutil.copytree(data, tmp_path / "work")
    store.puts.clear()
    store.hold_after = 12
    command = ["-m", "corpus.build", str(recipe), "--out", "s3://killed/here", "--work", str(tmp_path / "work")]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment(**store.settings), stderr=subprocess.DEVNULL
    )
    try:
        assert store.holding.wait(PATIENCE)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        store.hold_after = None
    first = set(store.puts)
    assert 12 <= len(first) and not any(key.endswith(("stream.json", "manifest.json")) for key in first)
    store.puts.clear()
    result = upload(recipe, store, "killed", tmp_path / "work")
    assert result.returncode == 0, result.stderr
    assert not first & set(store.puts)
    names = [path.rsplit("/", 1)[1] for path in store.puts]
    assert names[-1] == "manifest.json" and names.count("stream.json") == 2
    same_as_local(store, "killed", data)


def test_what_is_damaged_in_the_store_is_found_and_mended(
    local: tuple[Path, Path], store: Store, tmp_path: Path
) -> None:
    recipe, data = local
    client = store.bucket("damaged")
    shutil.copytree(data, tmp_path / "work")
    assert upload(recipe, store, "damaged", tmp_path / "work").returncode == 0
    shard = next(key for key in store.objects("damaged") if key.endswith(".mds.zstd"))
    content = store.objects("damaged")[shard]
    client.put_object(Bucket="damaged", Key=shard, Body=content[:-1] + b"?")
    verified = run_command("-m", "corpus.inspect", "s3://damaged/here/small", "--verify", **store.settings)
    assert verified.returncode == 1 and "damaged" in verified.stdout and "shard.00000" in verified.stdout
    assert upload(recipe, store, "damaged", tmp_path / "work").returncode == 0
    same_as_local(store, "damaged", data)


def test_inspect_reads_the_store(local: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    recipe, data = local
    store.bucket("shown")
    shutil.copytree(data, tmp_path / "work")
    assert upload(recipe, store, "shown", tmp_path / "work").returncode == 0
    for options in (["--json"], ["--samples", "2", "a", "--json"]):
        there = run_command("-m", "corpus.inspect", "s3://shown/here/small", *options, **store.settings)
        here = run_command("-m", "corpus.inspect", str(data / "small"), *options)
        assert there.returncode == 0, there.stderr
        left, right = json.loads(there.stdout), json.loads(here.stdout)
        if isinstance(left, dict):
            left.pop("built"), right.pop("built")
        assert left == right
    absent = run_command("-m", "corpus.inspect", "s3://shown/elsewhere", **store.settings)
    assert "s3://shown/elsewhere: no such file" in user_error(absent)


def test_closed_sources_go_to_private_stores_only(local: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    recipe, data = local
    raw = yaml.safe_load(recipe.read_text())
    raw["sources"]["b"]["redistributable"] = False
    closed = recipe.with_name("closed.yaml")
    closed.write_text(yaml.safe_dump(raw))
    work = tmp_path / "work"
    client = store.bucket("open-acl")
    client.put_bucket_acl(Bucket="open-acl", ACL="public-read")
    everyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::open-policy/*"}
    store.bucket("open-policy").put_bucket_policy(
        Bucket="open-policy", Policy=json.dumps({"Version": "2012-10-17", "Statement": [everyone]})
    )
    for bucket in ("open-acl", "open-policy"):
        line = user_error(upload(closed, store, bucket, work, "--private-store"))
        assert "'b' must not be redistributed" in line and "anyone may read" in line
        assert not store.objects(bucket)
    store.bucket("silent")
    store.denied = {"acl", "policy", "publicAccessBlock"}
    try:
        assert "--private-store" in user_error(upload(closed, store, "silent", work))
        assert not work.joinpath("streams").exists()  # refused before any work
        shutil.copytree(data, work, dirs_exist_ok=True)
        assert upload(closed, store, "silent", work, "--private-store").returncode == 0
    finally:
        store.denied = set()
    store.bucket("own")
    result = upload(closed, store, "own", work)
    assert result.returncode == 0, result.stderr
    # What is open goes anywhere.
    assert upload(recipe, store, "open-acl", work).returncode == 0


def test_mistakes_are_one_line_each(local: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    recipe, _ = local
    assert "no such bucket" in user_error(upload(recipe, store, "absent", tmp_path / "work"))
    assert not (tmp_path / "work" / "streams").exists()
    here = run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path), "--work", str(tmp_path))
    assert "is for --out s3://" in user_error(here)


def test_a_second_upload_hashes_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, note = tmp_path / "stream", tmp_path / "note.json"
    (folder / "units").mkdir(parents=True)
    for name in ("a", "units/b"):
        (folder / name).write_bytes(name.encode())
    first = uploads._files(folder, lambda name: True, note)
    assert [file.md5 for file in first] == [hashlib.md5(name.encode()).hexdigest() for name in ("a", "units/b")]  # noqa: S324
    read: list[str] = []
    hash_of = uploads._file
    monkeypatch.setattr(uploads, "_file", lambda folder, path: read.append(path.name) or hash_of(folder, path))
    assert uploads._files(folder, lambda name: True, note) == first and not read
    (folder / "units/b").write_bytes(b"other")
    assert uploads._files(folder, lambda name: True, note) != first and read == ["b"]
