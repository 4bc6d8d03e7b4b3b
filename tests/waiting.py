"""Waiting in tests: for what has to happen, not for a time that it should take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 1200.0
"""Seconds after which what a test waits for counts as hanging. No measure of speed: on a quiet machine nothing takes a
tenth of it."""


def wait_until(
    condition: Callable[[], Any],
    going_on: Callable[[], Any] = lambda: True,
    *,
    pause: float = 0.01,
    patience: float = PATIENCE,
) -> bool:
    """Wait until `condition()` holds; False when `going_on()` no longer does, or `patience` seconds end, before."""
    deadline = time.monotonic() + patience
    while not condition():
        if not going_on() or time.monotonic() > deadline:
            return bool(condition())
        time.sleep(pause)
    return True
