"""S3-compatible stores: paths in them that the readers of local builds can use, and errors a person can act on.

Credentials, region and endpoint come from where boto3 looks for them: AWS_PROFILE, the AWS_ keys, AWS_ENDPOINT_URL_S3.
"""

from __future__ import annotations

import contextlib
import functools
import io
import posixpath
import shutil
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import IO, Any

from corpus.base.errors import UserError

SCHEME = "s3://"
ATTEMPTS = 8
"""Tries of one request, with growing pauses between them."""
THREADS = 8
"""Requests at once."""
MISSING = ("404", "NoSuchKey", "NotFound")


def location(text: str) -> Path:
    """A path as written on a command line: of this machine, or s3://bucket/key."""
    return StorePath(text) if text.startswith(SCHEME) else Path(text)


class StorePath(PosixPath):
    """A path in a store that is read like a file: joined, asked whether it is there, and opened ("rb" only)."""

    def __str__(self) -> str:
        return SCHEME + "/".join(self._names())

    def _names(self) -> list[str]:
        # A manifest names its streams as ../streams/...; a store knows no '..'.
        return posixpath.normpath("/".join(self.parts[1:])).split("/")

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._names()[0]

    @property
    def key(self) -> str:
        """The object's key, or a prefix without its last slash; empty for the bucket itself."""
        return "/".join(self._names()[1:])

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self.head() is not None

    def is_dir(self) -> bool:
        """Whether there are objects below this name."""
        with store_errors(str(self)):
            found = client().list_objects_v2(Bucket=self.bucket, Prefix=self._prefix(), MaxKeys=1)
        return bool(found.get("KeyCount", len(found.get("Contents", []))))

    def open(self, mode: str = "rb", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """The object's bytes, all of them in memory (shards are small); FileNotFoundError when it is not there."""
        assert mode == "rb", mode
        from botocore.exceptions import HTTPClientError, ResponseStreamingError

        with store_errors(str(self)):
            for attempt in range(ATTEMPTS):
                try:
                    body = client().get_object(Bucket=self.bucket, Key=self.key)["Body"]
                    return io.BytesIO(body.read())
                except (ResponseStreamingError, HTTPClientError):  # boto3 retries requests, but no cut-off answers
                    if attempt == ATTEMPTS - 1:
                        raise
        raise AssertionError

    def head(self) -> dict[str, Any] | None:
        """The object's headers as boto3 has them, None when it is not there."""
        with store_errors(str(self)):
            try:
                return dict(client().head_object(Bucket=self.bucket, Key=self.key))
            except FileNotFoundError:
                return None
            except client().exceptions.ClientError as error:
                if error.response["Error"]["Code"] in MISSING:
                    return None
                raise

    def listing(self) -> dict[str, tuple[int, str]]:
        """{name relative to this: (bytes, ETag)} of all objects below this name."""
        prefix = self._prefix()
        found: dict[str, tuple[int, str]] = {}
        with store_errors(str(self)):
            for page in client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    found[item["Key"][len(prefix) :]] = (item["Size"], item["ETag"].strip('"'))
        return found

    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder, of this machine or of a store, into ``target``."""
    if not isinstance(source, StorePath):
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    for name in source.listing():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((source / name).read_bytes())


@functools.lru_cache(maxsize=1)
def client() -> Any:
    """The boto3 client of this process; its methods can be used from many threads."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        config=Config(
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            max_pool_connections=THREADS,
            connect_timeout=10,
            read_timeout=60,
            # Many compatible stores do not know the newer checksums; uploads carry an MD5, which all check.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextlib.contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn errors of boto3 into a UserError, or FileNotFoundError for an object that is not there."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise UserError("no credentials for the store", where=where, fix="Set AWS_PROFILE or the AWS_ keys.") from None
    except ClientError as error:
        code = str(error.response["Error"].get("Code"))
        if code in MISSING:
            raise FileNotFoundError(where) from None
        if code == "NoSuchBucket":
            raise UserError("no such bucket", where=where, fix="Create it first.") from None
        if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            raise UserError("the store denies access", where=where, fix="Check AWS_PROFILE or the AWS_ keys.") from None
        raise UserError(f"the store fails: {error}", where=where, fix="Run the same command again later.") from None
    except BotoCoreError as error:
        raise UserError(f"the store fails: {error}", where=where, fix="Run the same command again later.") from None
