"""Objects of S3-compatible stores, through boto3."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from corpus.acquire import network
from corpus.acquire.disk import CHUNK, read_note, short_hash, write_note
from corpus.acquire.models import AcquireConfig, Listing, SourceFile, listing_of
from corpus.acquire.names import is_glob, safe_name, select
from corpus.acquire.origins import S3Origin
from corpus.acquire.transfer import AccessDenied, Body, Retry, retrying
from corpus.base.errors import UserError


class _Object(NamedTuple):
    size: int
    etag: str | None
    """Quotes included."""


def list_objects(origin: S3Origin, config: AcquireConfig, where: str) -> Listing:
    """The objects the globs match, with size and ETag; kept, so that a build continues with the same files.

    An object's name is `<bucket>/<key>`.
    """
    note = config.cache / "listings" / "s3" / f"{short_hash(origin.model_dump_json())}.json"
    known = read_note(note)
    fresh = config.offline or not config.refresh
    if fresh and isinstance(known, dict) and isinstance(known.get("files"), list):
        return listing_of(SourceFile(*file) for file in known["files"])
    if config.offline:
        raise UserError("its objects were never listed here", where=where, fix="Run it once without --offline.")
    files: dict[str, SourceFile] = {}
    for path in origin.paths:
        if not path.startswith("s3://"):
            raise UserError(f"not an s3:// path: {path!a}", where=where)
        pattern = path.removeprefix("s3://")
        objects = retrying(functools.partial(_found, pattern, where), where)
        for name in select(sorted(objects), [pattern], [], where):
            size, etag = objects[name]
            digest = f"etag:{etag}" if etag else f"size:{size}"
            files[name] = SourceFile(safe_name(name, where), f"s3://{name}", size, digest)
    listing = listing_of(files.values())
    write_note(note, {"files": [[file.name, file.url, file.size, file.digest] for file in listing.files]})
    return listing


def _found(pattern: str, where: str) -> dict[str, _Object]:
    """The objects under the part of a pattern that has no wildcard."""
    bucket, _, key = pattern.partition("/")
    if is_glob(bucket) or not key:
        raise UserError(f"s3://{pattern} names no bucket", where=where)
    client = _client(where)
    with _store_errors(f"s3://{pattern}", where):
        if not is_glob(key):
            head = client.head_object(Bucket=bucket, Key=key)
            return {pattern: _Object(int(head["ContentLength"]), head.get("ETag"))}
        prefix = re.split(r"[*?\[]", key, maxsplit=1)[0]
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):  # what consoles make in place of a folder
                    found[f"{bucket}/{entry['Key']}"] = _Object(int(entry["Size"]), entry.get("ETag"))
        return found


@contextlib.contextmanager
def open_at(url: str, where: str, offset: int, validator: str | None) -> Iterator[Body]:
    """An object from ``offset`` on; from 0 when it is not the one ``validator`` names."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    client = _client(where)
    with _store_errors(url, where):
        head = client.head_object(Bucket=bucket, Key=key)
        size, etag = int(head["ContentLength"]), head.get("ETag")
        start = offset if validator is None or validator == etag else 0
        if start >= size:
            yield Body(size if start == size else -1, size, etag, iter(()))
            return
        condition = {"IfMatch": etag} if etag else {}
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-", **condition)
        with contextlib.closing(answer["Body"]) as stream:
            yield Body(start, size, etag, stream.iter_chunks(CHUNK))


def endpoint(where: str) -> str:
    """The store's address, from the environment, the AWS profile or Amazon."""
    return str(_client(where).meta.endpoint_url)


def _client(where: str) -> Any:
    # One per process: connections must not be shared across a fork. The settings are those of now.
    settings = tuple(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE"))
    with _store_errors("the store", where):
        network.check_settings()
        return _client_of(os.getpid(), settings)


@functools.lru_cache(maxsize=4)
def _client_of(process: int, settings: tuple[str | None, ...]) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.session.Session()
    # Public buckets need no login; without credentials signing would fail before the store is asked.
    anonymous = {"signature_version": UNSIGNED} if session.get_credentials() is None else {}
    once = {"total_max_attempts": 1}  # we retry ourselves
    config = Config(connect_timeout=10, read_timeout=60, retries=once, **anonymous)
    return session.client("s3", config=config)


@contextlib.contextmanager
def _store_errors(what: str, where: str) -> Iterator[None]:
    """Errors of botocore as ours."""
    import urllib3
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        if status == 404:
            raise UserError(f"no such object or bucket: {what}", where=where) from None
        if status in (401, 403):
            fix = "Check AWS_PROFILE or the AWS_ keys."
            raise AccessDenied(f"the store denies access ({code})", where=where, fix=fix) from None
        if status >= 500 or status in (408, 412, 429) or code in ("SlowDown", "RequestTimeout"):
            raise Retry(f"the store answered {status} {code}") from None
        raise UserError(f"the store answered {status} {code} for {what}", where=where) from None
    except (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.ProfileNotFound,
        boto.ConfigParseError,
    ) as error:
        raise UserError(str(error), where=where, fix="Check AWS_PROFILE or the AWS_ keys.") from None
    except (boto.BotoCoreError, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
        if (final := network.failure(error, what, where)) is not None:
            raise final from None
        raise Retry(f"the store failed ({type(error).__name__})") from None
