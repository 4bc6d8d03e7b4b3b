"""One of the training processes: how it reports errors, hears that it should stop, and acts with the others."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

from corpus.base.errors import UserError, command
from corpus.base.process import end_with_parent

T = TypeVar("T")

REPORT_SECONDS = 10.0
"""How long other processes of a machine leave it to the first one to report an error they share."""


@contextlib.contextmanager
def reported_once() -> Iterator[None]:
    """Like `command`, but an error that all processes of a machine meet is printed by the first alone.

    The launcher ends the others once the first has exited; one that met an error of its own prints it after a wait.
    """
    with command():
        try:
            yield
        except UserError:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if int(os.environ.get("LOCAL_RANK", "0")) != 0:
                time.sleep(REPORT_SECONDS)
            raise


def say(text: str) -> None:
    """Print on the job's first process, without torch."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def on_first(action: Callable[[], T]) -> T:
    """Run `action` on rank 0 and give every rank its result, or the UserError it raised."""
    from composer.utils import dist

    outcome: list[T | UserError | None] = [None]
    if dist.get_global_rank() == 0:
        try:
            outcome[0] = action()
        except UserError as error:
            outcome[0] = error
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], UserError):
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]


def follow_launcher(launcher: int) -> None:
    """Hear of the end of the launcher (a process number), even by SIGKILL: call it before the imports that take long.

    The launcher passes SIGTERM on, but killed outright it would leave its processes training on unseen.
    """
    if "RANK" in os.environ:
        end_with_parent(signal.SIGTERM, launcher)


class StopSignal:
    """Remembers SIGTERM and USR1, so that the run saves and ends after the step in progress instead of dying inside it.

    Composer's launcher gives its processes 30 seconds from SIGTERM on. A scheduler that sends USR1 first, with the
    launcher ignoring it (`trap '' USR1` before it), leaves them as long as the scheduler does.
    """

    def __init__(self) -> None:
        """Listen for USR1; until `listen`, SIGTERM ends the process, which has nothing to save yet."""
        self.received = False
        signal.signal(signal.SIGUSR1, self._handle)

    def listen(self) -> None:
        """Listen for both. Call it after Composer is imported, which sets handlers of its own that exit at once."""
        signal.signal(signal.SIGUSR1, self._handle)
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def reached_any(self) -> bool:
        """Whether any process was asked to stop, the same on all; every rank must call it."""
        from composer.utils import dist

        flags = dist.all_gather_object(self.received)
        return any(flags)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
