"""Objects of S3-compatible stores, through fsspec and s3fs (the extra `s3`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from corpus.acquire.disk import CHUNK, read_note, short_hash, write_note
from corpus.acquire.models import AcquireConfig, Listing, SourceFile, listing_of
from corpus.acquire.names import is_glob, safe_name, select, static_prefix
from corpus.acquire.origins import S3Origin
from corpus.acquire.transfer import AccessDenied, Body, Retry, retrying
from corpus.base.errors import UserError


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
        infos = retrying(lambda pattern=pattern: _found(pattern, where), where)  # type: ignore[misc]
        for name in select(sorted(infos), [pattern], [], where):
            etag = str(infos[name].get("ETag") or "").strip('"')
            size = int(infos[name]["size"])
            digest = f'etag:"{etag}"' if etag else f"size:{size}"
            files[name] = SourceFile(safe_name(name, where), f"s3://{name}", size, digest)
    listing = listing_of(files.values())
    write_note(note, {"files": [[file.name, file.url, file.size, file.digest] for file in listing.files]})
    return listing


def _found(pattern: str, where: str) -> dict[str, dict[str, Any]]:
    store = _store(where)
    if is_glob(pattern) and not static_prefix(pattern):
        raise UserError(f"s3://{pattern} names no bucket", where=where)
    with _store_errors(where):
        if not is_glob(pattern):
            return {pattern: store.info(pattern)}
        found: dict[str, dict[str, Any]] = store.find(static_prefix(pattern), detail=True)
        return {name: info for name, info in found.items() if info.get("type") == "file"}


@contextlib.contextmanager
def open_at(url: str, where: str, offset: int, validator: str | None) -> Iterator[Body]:
    """An object from ``offset`` on; from 0 when it is not the one ``validator`` names."""
    store = _store(where)
    with _store_errors(where):
        info = store.info(url)
        etag = f'"{str(info["ETag"]).strip(chr(34))}"' if info.get("ETag") else None
        start = offset if validator is None or validator == etag else 0
        with store.open(url, "rb", block_size=8 << 20, cache_type="readahead") as stream:
            stream.seek(start)
            yield Body(start, int(info["size"]), etag, iter(lambda: stream.read(CHUNK), b""))


def _store(where: str) -> Any:
    try:
        import botocore.session
        import s3fs
    except ImportError:
        raise UserError("reading s3:// needs s3fs", where=where, fix="Run `pip install 'mobilecorpus[s3]'`.") from None
    # Public buckets need no login; without credentials signing would fail before the store is asked.
    anonymous = botocore.session.Session().get_credentials() is None
    # Given, though botocore reads it too: s3fs reuses an instance made with the same arguments.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    return s3fs.S3FileSystem(anon=anonymous, endpoint_url=endpoint, use_listings_cache=False)


@contextlib.contextmanager
def _store_errors(where: str) -> Iterator[None]:
    """Errors of s3fs and botocore as ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"no such object or bucket: {error}", where=where) from None
    except PermissionError:
        raise AccessDenied("the store denies access", where=where, fix="Check AWS_PROFILE or the AWS_ keys.") from None
    except (BotoCoreError, ClientError, TimeoutError, ConnectionError) as error:
        raise Retry(f"the store failed ({type(error).__name__})") from None
