"""One piece of work at a time beside the training loop: what holds a step up is only the hand-over."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs pieces of work on a thread, one after the other; an error is kept until somebody asks.

    The thread is no daemon: a process that ends for another reason still finishes what it was writing.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work`; the piece before must have been waited for."""
        assert self._thread is None, "one at a time"
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint")
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether the work has ended in an error, which `wait` raises."""
        return self._error is not None

    def wait(self) -> None:
        """Until the work in progress is done; raises its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._error = error
