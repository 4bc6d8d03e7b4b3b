"""One file over an unreliable connection: resumed, retried, verified, and complete or absent under its final name."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from corpus.acquire.disk import CHUNK, Partial
from corpus.base.errors import UserError
from corpus.base.files import disk_errors

ATTEMPTS = 6
"""Failures in a row, none of which brought CHUNK bytes or more, before giving up."""
FIRST_PAUSE = 0.5
"""Seconds before the first retry; doubled each time, with jitter."""
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 900.0
"""Seconds a server may ask us to wait; beyond that a person should know."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Retry(Exception):
    """A failure that may pass; ``after`` is the wait in seconds the server asked for."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class AccessDenied(UserError):
    """The source needs a login, or terms to be accepted first."""


class Cancelled(Exception):
    """The download was told to stop; what arrived stays and is continued later."""


@dataclass
class Body:
    """An open answer: bytes of a file from ``start`` on."""

    start: int
    total: int | None
    """Bytes of the whole file, where the server says."""
    validator: str | None
    """Strong ETag, or else a date of change, that a later request can name to continue this very file."""
    chunks: Iterator[bytes]


Open = Callable[[int, str | None], AbstractContextManager[Body]]
"""Opens a file at an offset, the validator of what is here already given; raises Retry or UserError."""


@dataclass(frozen=True)
class Job:
    """One file to bring here."""

    open_at: Open
    target: Path
    partial: Partial
    """On the same file system as ``target``."""
    size: int | None
    digest: str | None
    where: str
    """Names source and file in errors."""
    max_bytes: int | None = None
    """Refuse a file of unknown size that grows beyond this."""
    cancelled: Callable[[], bool] = lambda: False


def retrying(action: Callable[[], T], where: str) -> T:
    """Call ``action`` until it does not raise Retry; gives up with a UserError after ATTEMPTS."""
    failures = 0
    while True:
        try:
            return action()
        except Retry as error:
            failures += 1
            _pause(error, failures, where)


def _pause(error: Retry, failures: int, where: str, cancelled: Callable[[], bool] = lambda: False) -> None:
    if failures >= ATTEMPTS:
        raise UserError(f"gave up after {failures} attempts: {error}", where=where, fix="Run it again later.") from None
    if error.after is not None and error.after > LONGEST_RETRY_AFTER:
        raise UserError(
            f"{error}; it asks to wait {error.after:.0f} s", where=where, fix="Run it again later."
        ) from None
    # Jitter keeps many workers, refused together, from coming back together.
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
    pause = max(pause, error.after or 0.0)
    log.info("%s: %s; trying again in %.1f s", where, error, pause)
    until = time.monotonic() + pause
    while (left := until - time.monotonic()) > 0:
        if cancelled():
            raise Cancelled
        time.sleep(min(left, 0.2))


def download(job: Job) -> None:
    """Bring ``job.target`` here, continuing what an earlier run left; raises UserError naming the file."""
    with disk_errors(job.partial.path.parent):
        job.partial.path.parent.mkdir(parents=True, exist_ok=True)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        for last in (False, True):
            _gather(job)
            problem = _mismatch(job)
            if problem is None:
                break
            # A damaged or mixed-up partial file looks like this too, so start over once.
            job.partial.discard()
            if last:
                raise UserError(
                    problem, where=job.where, fix="The server sends wrong bytes; report it, or use a mirror."
                )
        job.partial.publish(job.target)


def _gather(job: Job) -> None:
    """Append to the partial file until it is whole."""
    pinned = job.digest is not None and job.digest.startswith(("sha256:", "git:"))
    failures = 0
    while True:
        have = job.partial.size
        validator = job.partial.validator if have else None
        # Without a validator only a content hash can tell that the rest belongs to what is here.
        again = (have > 0 and not pinned and not validator) or (job.size is not None and have > job.size)
        if again:
            job.partial.discard()
            have, validator = 0, None
        if job.size is not None and have == job.size and job.partial.path.exists():
            return
        _check_space(job, have)
        try:
            if _receive(job, have, validator):
                return
            raise Retry("the connection was cut")
        except Retry as error:
            # What has to be brought once more is no progress.
            failures = 1 if job.partial.size - have >= CHUNK and not again else failures + 1
            _pause(error, failures, job.where, job.cancelled)


def _check_space(job: Job, have: int) -> None:
    free = job.partial.free()
    if job.size is not None and job.size - have > free:
        raise UserError(
            f"the disk has {free:,} bytes free, but {job.size - have:,} are still to come for {job.where}",
            where=str(job.partial.path.parent),
            fix="Free some space, choose another folder, or set --cache-limit.",
        )


def _receive(job: Job, have: int, validator: str | None) -> bool:
    """One request's worth of bytes; whether the file is whole now."""
    with job.open_at(have, validator) as body:
        _check_same_file(job, body)
        if body.start not in (0, have):
            job.partial.discard()
            raise Retry("the server answered with another range than asked for")
        if body.start == 0 and have:
            job.partial.discard()
        if body.validator:
            job.partial.note(body.validator)
        expected = job.size if job.size is not None else body.total
        bound = expected if expected is not None else job.max_bytes
        at = body.start
        with job.partial.append() as out:
            for chunk in body.chunks:
                at += len(chunk)
                if bound is not None and at > bound:
                    raise UserError(f"the server sends more than the {bound:,} bytes expected", where=job.where)
                out.write(chunk)
                if job.cancelled():
                    raise Cancelled
        return expected is None or at == expected


def _check_same_file(job: Job, body: Body) -> None:
    changed = None
    if job.size is not None and body.total is not None and body.total != job.size:
        changed = f"has {body.total:,} bytes now, but had {job.size:,} when it was listed"
    elif job.digest and job.digest.startswith("etag:") and (body.validator or "").startswith('"'):
        if body.validator != job.digest.removeprefix("etag:"):
            changed = "was changed on the server since it was listed"
    if changed:
        raise UserError(changed, where=job.where, fix="List it anew with --refresh.")


def _mismatch(job: Job) -> str | None:
    """How the gathered bytes differ from what was listed; None when they do not."""
    size = job.partial.size
    if job.size is not None and size != job.size:
        return f"has {size:,} bytes instead of {job.size:,}"
    kind, _, expected = (job.digest or "").partition(":")
    if kind == "sha256":
        whole = hashlib.sha256()
    elif kind == "git":
        whole = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    else:
        return None
    with open(job.partial.path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            whole.update(chunk)
    return None if whole.hexdigest() == expected else f"has {kind} {whole.hexdigest()} instead of {expected}"
