"""A stream is made by one build at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from corpus.base.errors import UserError
from corpus.streams.plan import StreamPlan


@contextlib.contextmanager
def stream_lock(plan: StreamPlan) -> Iterator[None]:
    """Hold a stream for this build; the lock goes with the process, however it ends."""
    folder = plan.data / ".build"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{plan.folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another build is making this stream",
                where=f"stream {plan.folder.name}",
                fix="Wait for it, or use another --out.",
            ) from None
        yield
