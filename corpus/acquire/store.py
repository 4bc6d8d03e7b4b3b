"""The download folder: who uses which file, what may be deleted, and how many bytes there may be.

A file in use is held by a shared lock, which the kernel drops when its process dies. The ledger knows the files that
were downloaded under a bound; only these count against it and only these are ever deleted.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corpus.acquire.disk import Partial, lock_path, short_hash
from corpus.acquire.ledger import Ledger, ledger
from corpus.acquire.models import AcquireConfig
from corpus.acquire.transfer import Cancelled
from corpus.base.errors import UserError
from corpus.base.files import disk_errors
from corpus.base.locks import Lock, locked

WAIT = 0.1
"""Seconds between looks whether space was freed."""
STALL_SECONDS = 3600.0
"""Give up waiting for space when nothing was freed or fetched for so long."""

_pins: dict[Path, list[Lock]] = {}
_pins_guard = threading.Lock()


@dataclass(frozen=True)
class Entry:
    """A download in the cache."""

    config: AcquireConfig
    path: str
    """Where it is, relative to the cache."""
    size: int | None
    where: str

    @property
    def target(self) -> Path:
        """The complete file."""
        return self.config.cache / self.path

    @property
    def partial(self) -> Partial:
        """The bytes that came so far."""
        return _partial(self.config.cache, self.path)

    @property
    def complete(self) -> bool:
        """Whether the whole file is here (a file of another size was damaged, or is of another listing)."""
        return self.target.is_file() and (self.size is None or self.target.stat().st_size == self.size)


def _partial(cache: Path, path: str) -> Partial:
    return Partial(cache / "partial" / f"{short_hash(path)}.part")


def fetch(
    entry: Entry, bring: Callable[[Entry], None], *, pin: bool, cancelled: Callable[[], bool] = lambda: False
) -> Path:
    """The complete file, brought by ``bring`` when it is not here; with ``pin`` it stays until :func:`release`."""
    if not entry.config.bounded:
        if not entry.complete:
            with locked(lock_path(entry.config.cache, entry.path)):
                if not entry.complete:
                    bring(entry)
        return entry.target
    lock = Lock(lock_path(entry.config.cache, entry.path))
    patience = _Patience(entry)
    held = False
    try:
        while True:
            lock.share()
            # Between the exclusive and the shared lock another process may have made room with this very file.
            if entry.complete:
                if pin:
                    with _pins_guard:
                        _pins.setdefault(entry.target, []).append(lock)
                    held = True
                return entry.target
            lock.exclusive()
            if entry.complete:
                continue
            _check_limit(entry)
            if _reserve(entry, demand=pin):
                bring(entry)
            else:
                # Whoever waits for space must hold nothing: a unit may need this file more than we do.
                lock.release()
                if cancelled():
                    raise Cancelled
                patience.wait()
    finally:
        if not held:
            lock.close()
            if not pin and not entry.config.keep:
                with ledger(entry.config.cache) as book:  # its last unit may have ended while it was held here
                    _delete_unneeded(entry, book)


def release(entry: Entry) -> None:
    """A unit is done with the file; with keep=False it is deleted when no other unit is known to need it."""
    if not entry.config.bounded:
        return
    with _pins_guard:
        locks = _pins.get(entry.target, [])
        lock = locks.pop() if locks else None
        if not locks:
            _pins.pop(entry.target, None)
    if lock is None:
        return
    with ledger(entry.config.cache) as book:
        lock.close()
        book.done(entry.path)
        book.touch(entry.path)
        _delete_unneeded(entry, book)


def _delete_unneeded(entry: Entry, book: Ledger) -> None:
    """With keep=False, delete the file when no unit needs it and nobody holds it (who does comes here after us)."""
    if not entry.config.keep and not book.is_needed(entry.path):
        _delete(entry.config.cache, book, entry.path)


def plan_needs(config: AcquireConfig, paths: list[str]) -> None:
    """Tell the ledger which files will be needed: one item per unit, in order. Replaces an earlier plan.

    With keep=False, what a killed build left here and nobody needs any more is deleted.
    """
    with ledger(config.cache) as book:
        book.plan(paths)
        if not config.keep:
            for path in list(book.unneeded()):
                _delete(config.cache, book, path)


def _check_limit(entry: Entry) -> None:
    limit = entry.config.cache_limit
    if limit is not None and (entry.size is None or entry.size > limit):
        size = "of unknown size" if entry.size is None else f"{entry.size:,} bytes long"
        raise UserError(
            f"the file is {size}, but --cache-limit is {limit:,}", where=entry.where, fix="Raise --cache-limit."
        )


def _reserve(entry: Entry, *, demand: bool) -> bool:
    """Count the file's bytes before they come, making room if need be; False when there is none yet.

    ``demand``: a unit waits for it, so that files fetched ahead for later units may go as well.
    """
    limit = entry.config.cache_limit
    with ledger(entry.config.cache) as book:
        if not demand and not book.is_needed(entry.path):
            raise Cancelled  # the units that wanted it got it themselves and are done
        others = book.bytes - (book.size(entry.path) or 0)
        over = 0 if limit is None else others + (entry.size or 0) - limit
        if over > 0 and over > _make_room(entry.config.cache, book, over, demand):
            return False
        book.add(entry.path, entry.size or 0)
        return True


class _Patience:
    """Waits for space as long as somebody makes progress."""

    def __init__(self, entry: Entry) -> None:
        self._entry, self._tick, self._since = entry, -1, time.monotonic()

    def wait(self) -> None:
        """Sleep a little; raises UserError when nothing moved for STALL_SECONDS."""
        with ledger(self._entry.config.cache) as book:
            tick = book.tick
        now = time.monotonic()
        if tick != self._tick:
            self._tick, self._since = tick, now
        if now - self._since > STALL_SECONDS:
            raise UserError(
                f"waited {STALL_SECONDS / 60:.0f} minutes for {self._entry.size:,} bytes of the cache",
                where=self._entry.where,
                fix="Raise --cache-limit, or use fewer workers: each needs room for the files of its unit.",
            )
        time.sleep(WAIT)


def _make_room(cache: Path, book: Ledger, over: int, demand: bool) -> int:
    """Delete files nobody uses until ``over`` bytes are free or none is left; returns the bytes freed."""
    freed = 0
    for path in itertools.chain(book.unneeded(), book.ahead() if demand else ()):
        if freed >= over:
            break
        freed += _delete(cache, book, path)
    return freed


def _delete(cache: Path, book: Ledger, path: str) -> int:
    """Delete a ledger's file unless somebody holds it; returns its bytes, 0 when it stays."""
    size = book.size(path)
    if size is None:
        return 0
    lock = Lock(lock_path(cache, path))
    try:
        if not lock.exclusive(wait=False):
            return 0
        with disk_errors(cache):
            (cache / path).unlink(missing_ok=True)
            _partial(cache, path).discard()
        book.remove(path)
        return size
    finally:
        lock.close()
