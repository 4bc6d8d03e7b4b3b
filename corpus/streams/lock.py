"""A stream is made by one build at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from corpus.base.errors import UserError
from corpus.base.locks import Lock
from corpus.streams.plan import StreamPlan


@contextlib.contextmanager
def stream_lock(plan: StreamPlan) -> Iterator[None]:
    """Hold a stream for this build; the lock goes with the process, however it ends."""
    lock = Lock(plan.data / ".build" / f"{plan.folder.name}.lock")
    try:
        if not lock.exclusive(wait=False):
            raise UserError(
                "another build is making this stream",
                where=f"stream {plan.folder.name}",
                fix="Wait for it, or use another --out.",
            )
        yield
    finally:
        lock.close()
