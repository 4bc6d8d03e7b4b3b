"""Finished builds into an S3-compatible store: complete or absent there, and closed sources never in the open.

Objects lie in the store as files lie in the data folder. A stream's `stream.json` and a build's `manifest.json` come
last, after everything they speak for was found in the store with the right hash; a stopped upload goes on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from corpus.base.errors import UserError
from corpus.base.files import missing_shards, read_json, write_json_rows
from corpus.records.manifest import MANIFEST_FILE
from corpus.records.stream import STREAM_FILE
from corpus.streams.finish import stream_files
from corpus.streams.store import THREADS, StorePath, client, store_errors

ROUNDS = 3
"""Looks at the store, each followed by an upload of what is not there."""
NEWS_EVERY = 10.0
"""Seconds between two lines about a long upload."""
EVERYONE = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)

Say = Callable[[str], None]


class _File(NamedTuple):
    name: str
    """Relative to the folder it is uploaded into."""
    path: Path
    size: int
    md5: str


def check_store(store: StorePath, closed: Iterable[str], vouched: bool) -> None:
    """Before any work: the bucket can be reached, and sources that are ``closed`` may go there.

    ``closed`` names sources that must not be redistributed. They are refused where the bucket's ACL or policy lets
    anyone read, whatever the user says; where neither can be read, ``vouched`` (--private-store) is asked for.
    """
    if not store.bucket or store.bucket == ".":
        raise UserError("names no bucket", where=str(store), fix="Write s3://bucket/prefix.")
    with store_errors(str(store)):
        try:
            client().head_bucket(Bucket=store.bucket)
        except client().exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            raise UserError("no such bucket", where=str(store), fix="Create it first.") from None
    names = sorted(closed)
    if not names:
        return
    what = f"'{names[0]}'{f' and {len(names) - 1} more sources' if names[1:] else ''} must not be redistributed"
    with store_errors(str(store)):
        public = is_public(store.bucket)
    if public:
        raise UserError(f"{what}, and anyone may read this bucket", where=str(store), fix="Use a private bucket.")
    if public is None and not vouched:
        raise UserError(
            f"{what}, and this store does not tell who may read it",
            where=str(store),
            fix="If it is private, say so with --private-store.",
        )


def is_public(bucket: str) -> bool | None:
    """Whether strangers can read a bucket by its ACL or policy; None when the store does not tell."""
    block = _ask("get_public_access_block", bucket, ("NoSuchPublicAccessBlockConfiguration",))
    rules = (block or {}).get("PublicAccessBlockConfiguration", {})
    if rules.get("IgnorePublicAcls") and rules.get("RestrictPublicBuckets"):
        return False
    acl = _ask("get_bucket_acl", bucket, ())
    if acl and any(grant.get("Grantee", {}).get("URI") in EVERYONE for grant in acl.get("Grants", [])):
        return True
    policy = _ask("get_bucket_policy", bucket, ("NoSuchBucketPolicy",))
    if policy is None:
        return None
    allowed = [_for_everyone(statement) for statement in _statements(policy.get("Policy", "{}"))]
    if True in allowed:
        return True
    return None if acl is None or None in allowed else False


def _ask(operation: str, bucket: str, nothing: tuple[str, ...]) -> dict[str, Any] | None:
    """The store's answer; {} when it says there is nothing set, None when it does not answer such questions."""
    from botocore.exceptions import ClientError

    try:
        return dict(getattr(client(), operation)(Bucket=bucket))
    except ClientError as error:
        return {} if error.response["Error"].get("Code") in nothing else None


def _statements(policy: str) -> list[dict[str, Any]]:
    found = json.loads(policy).get("Statement", [])
    return found if isinstance(found, list) else [found]


def _for_everyone(statement: dict[str, Any]) -> bool | None:
    """Whether a policy statement lets strangers in; None when it depends on conditions."""
    if statement.get("Effect") != "Allow":
        return False
    if "NotPrincipal" in statement:
        return True
    principal = statement.get("Principal", {})
    named = list(principal.values()) if isinstance(principal, dict) else [principal]
    if not any("*" in (one if isinstance(one, list) else [one]) for one in named):
        return False
    return None if statement.get("Condition") else True


def upload_stream(folder: Path, tokenizer: Path, data: Path, store: StorePath, say: Say) -> None:
    """Upload a complete stream of the data folder, and the tokenizer folder it needs."""
    _upload(store / tokenizer.relative_to(data).as_posix(), _files(tokenizer, lambda name: True), say)
    if missing := missing_shards(folder):
        raise UserError(
            f"{len(missing)} shards are not as they were built ({missing[0]})",
            where=f"stream {folder.name}",
            fix=f"Delete {folder} and build it again.",
        )
    # What belongs to the stream, and not what lies there: training leaves unpacked shards, a dead worker its parts.
    names = set(stream_files(folder))
    files = _files(folder, lambda name: name in names, data / ".build" / "hashes" / f"{folder.name}.json")
    target = store / folder.relative_to(data).as_posix()
    _upload(target, files, say)
    _upload(target, [_file(folder, folder / STREAM_FILE)], say)


def upload_build(folder: Path, store: StorePath, say: Say) -> None:
    """Upload a build directory whose streams are in the store."""
    _upload(store / folder.name, _files(folder, lambda name: name != MANIFEST_FILE), say)
    _upload(store / folder.name, [_file(folder, folder / MANIFEST_FILE)], say)


def _files(folder: Path, wanted: Callable[[str], bool], note: Path | None = None) -> list[_File]:
    """The files of a folder with their hashes; ``note`` keeps these: the next upload reads only what changed."""
    stored = read_json(note)["files"] if note and note.is_file() else []
    known = {name: facts for name, *facts in stored}
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))

    def hashed(path: Path) -> tuple[_File, int]:
        name, facts = path.relative_to(folder).as_posix(), path.stat()
        size, changed, md5 = known.get(name, [-1, 0, ""])
        if (size, changed) == (facts.st_size, facts.st_mtime_ns):
            return _File(name, path, size, md5), changed
        return _file(folder, path), facts.st_mtime_ns

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(hashed, (path for path in paths if wanted(path.relative_to(folder).as_posix()))))
    if note:
        now = {file.name: [file.size, changed, file.md5] for file, changed in found}
        if now != known:
            write_json_rows(note, {}, "files", ([name, *facts] for name, facts in now.items()))
    return [file for file, _ in found]


def _file(folder: Path, path: Path) -> _File:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return _File(path.relative_to(folder).as_posix(), path, path.stat().st_size, digest.hexdigest())


def _upload(target: StorePath, files: list[_File], say: Say) -> None:
    """Put what the store does not have, until a look at the store finds all of it with the right hash."""
    for _ in range(ROUNDS):
        absent = _absent(target, files)
        if not absent:
            return
        _put_all(target, absent, say)
    if wrong := _absent(target, files):
        raise UserError(
            f"the store does not hold {wrong[0].name} as it was uploaded",
            where=str(target),
            fix="Run the command again.",
        )


def _absent(target: StorePath, files: list[_File]) -> list[_File]:
    """What the store does not hold with the right hash."""
    held = target.listing()
    # A store that encrypts has ETags of its own making, and is asked about every file: many requests at once.
    with ThreadPoolExecutor(THREADS) as pool:
        there = list(pool.map(lambda file: _is_held(target, file, held), files))
    return [file for file, whole in zip(files, there, strict=True) if not whole]


def _is_held(target: StorePath, file: _File, held: dict[str, tuple[int, str]]) -> bool:
    size, etag = held.get(file.name, (-1, ""))
    if size != file.size:
        return False
    if etag == file.md5:
        return True
    # A store that encrypts has ETags of its own making; our note of the hash goes with the object.
    head = (target / file.name).head()
    return head is not None and head.get("Metadata", {}).get("md5") == file.md5


def _put_all(target: StorePath, files: list[_File], say: Say) -> None:
    total = sum(file.size for file in files)
    done, news = 0, time.monotonic() + NEWS_EVERY
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for file in pool.map(lambda file: _put(target, file), files):
                done += file.size
                if time.monotonic() > news:
                    news = time.monotonic() + NEWS_EVERY
                    say(f"{target}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB uploaded")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _put(target: StorePath, file: _File) -> _File:
    place = target / file.name
    with store_errors(str(place)):
        client().put_object(
            Bucket=place.bucket,
            Key=place.key,
            Body=file.path.read_bytes(),
            # The store refuses a body that is not the one hashed.
            ContentMD5=base64.b64encode(bytes.fromhex(file.md5)).decode(),
            Metadata={"md5": file.md5},
        )
    return file
