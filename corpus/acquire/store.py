"""The download folder: who uses which file, what may be deleted, and how many bytes there may be.

A file in use is held by a shared lock, which the kernel drops when its process dies. The ledger (JSON under a lock)
knows the files that were downloaded under a bound; only these count against it and only these are ever deleted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.acquire.disk import Partial, lock_path, read_note, short_hash, write_note
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
                with _ledger(entry.config.cache) as book:  # its last unit may have ended while it was held here
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
    with _ledger(entry.config.cache) as book:
        lock.close()
        need = book["needs"].get(entry.path)
        if need:
            need["units"] -= 1
            if need["units"] <= 0:
                del book["needs"][entry.path]
        _touch(book, entry.path)
        _delete_unneeded(entry, book)


def _delete_unneeded(entry: Entry, book: dict[str, Any]) -> None:
    """With keep=False, delete the file when no unit needs it and nobody holds it (who does comes here after us)."""
    if not entry.config.keep and entry.path not in book["needs"]:
        _delete(entry.config.cache, book, entry.path)


def plan_needs(config: AcquireConfig, paths: list[str]) -> None:
    """Tell the ledger which files will be needed: one item per unit, in order. Replaces an earlier plan.

    With keep=False, what a killed build left here and nobody needs any more is deleted.
    """
    needs: dict[str, dict[str, int]] = {}
    for rank, path in enumerate(paths):
        needs.setdefault(path, {"units": 0, "rank": rank})["units"] += 1
    with _ledger(config.cache) as book:
        book["needs"] = needs
        if not config.keep:
            for path in sorted(book["files"].keys() - needs):
                _delete(config.cache, book, path)


@contextlib.contextmanager
def _ledger(cache: Path) -> Iterator[dict[str, Any]]:
    """The ledger, alone; written back at the end. files: path -> {size, used}; needs: path -> {units, rank}."""
    with locked(lock_path(cache, "ledger")):
        book = read_note(cache / "ledger.json")
        if not isinstance(book, dict) or not {"files", "needs", "tick"} <= book.keys():
            book = {"files": {}, "needs": {}, "tick": 0}
        before = repr(book)
        yield book
        if repr(book) != before:
            write_note(cache / "ledger.json", book)


def _touch(book: dict[str, Any], path: str) -> None:
    if path in book["files"]:
        book["tick"] += 1
        book["files"][path]["used"] = book["tick"]


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
    with _ledger(entry.config.cache) as book:
        if not demand and entry.path not in book["needs"]:
            raise Cancelled  # the units that wanted it got it themselves and are done
        others = sum(file["size"] for path, file in book["files"].items() if path != entry.path)
        over = 0 if limit is None else others + (entry.size or 0) - limit
        if over > 0 and over > _make_room(entry.config.cache, book, over, demand):
            return False
        book["files"][entry.path] = {"size": entry.size or 0, "used": 0}
        _touch(book, entry.path)
        return True


class _Patience:
    """Waits for space as long as somebody makes progress."""

    def __init__(self, entry: Entry) -> None:
        self._entry, self._tick, self._since = entry, -1, time.monotonic()

    def wait(self) -> None:
        """Sleep a little; raises UserError when nothing moved for STALL_SECONDS."""
        with _ledger(self._entry.config.cache) as book:
            tick = book["tick"]
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


def _make_room(cache: Path, book: dict[str, Any], over: int, demand: bool) -> int:
    """Delete files nobody uses until ``over`` bytes are free or none is left; returns the bytes freed."""
    needs = book["needs"]
    idle = sorted((path for path in book["files"] if path not in needs), key=lambda path: book["files"][path]["used"])
    # Fetched ahead: the one needed last goes first.
    ahead = sorted((path for path in book["files"] if path in needs), key=lambda path: -needs[path]["rank"])
    freed = 0
    for path in [*idle, *(ahead if demand else [])]:
        if freed >= over:
            break
        freed += _delete(cache, book, path)
    return freed


def _delete(cache: Path, book: dict[str, Any], path: str) -> int:
    """Delete a ledger's file unless somebody holds it; returns its bytes, 0 when it stays."""
    if path not in book["files"]:
        return 0
    lock = Lock(lock_path(cache, path))
    try:
        if not lock.exclusive(wait=False):
            return 0
        with disk_errors(cache):
            (cache / path).unlink(missing_ok=True)
            _partial(cache, path).discard()
        return int(book["files"].pop(path)["size"])
    finally:
        lock.close()
