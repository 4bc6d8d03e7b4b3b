"""Downloading ahead of the workers, so that download and processing overlap."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType

from corpus.acquire import remote
from corpus.acquire.models import AcquireConfig, Listing
from corpus.acquire.origins import Upstream
from corpus.acquire.store import plan_needs
from corpus.acquire.transfer import Cancelled
from corpus.base.errors import UserError

log = logging.getLogger(__name__)


class Prefetcher:
    """Threads of the parent process that fetch files in the order the units will want them, within the cache's bound.

    ``order`` has one (source name, file name) per unit still to be done: how often a file occurs tells when it may
    be deleted. A file that cannot be fetched is left to the worker that needs it, which reports why.
    """

    def __init__(
        self,
        sources: Mapping[str, Upstream],
        listings: Mapping[str, Listing],
        order: Iterable[tuple[str, str]],
        config: AcquireConfig,
        threads: int = 4,
    ) -> None:
        files = {(name, file.name): file for name, listing in listings.items() for file in listing.files}
        units = [item for item in order if remote.is_remote(sources[item[0]], config)]
        jobs = {item: (sources[item[0]], listings[item[0]], files[item]) for item in dict.fromkeys(units)}
        if config.bounded:
            paths = {item: remote.entry(*job, config).path for item, job in jobs.items()}
            plan_needs(config, [paths[item] for item in units])
        self._config = config
        self._next = iter(jobs.values())
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(threads, len(jobs)))]

    def __enter__(self) -> Prefetcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; partial files stay and are continued by whoever needs them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)  # one stuck in a read must not hold up the end of a build

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._guard:
                job = next(self._next, None)
            if job is None:
                return
            source, listing, file = job
            try:
                remote.fetch(source, listing, file, self._config, pin=False, cancelled=self._stop.is_set)
            except Cancelled:
                continue
            except (UserError, OSError) as error:
                log.info("not fetched ahead: %s", error)
