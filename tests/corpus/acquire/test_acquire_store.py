"""Many processes and a bounded disk: one download per file, files in use stay, the rest makes room."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from corpus.acquire import AcquireConfig, Listing, Prefetcher, fetch, list_files, release, store
from corpus.acquire.origins import HubOrigin
from corpus.base.errors import UserError
from corpus.catalogue.models import Source
from tests.loopback_hub import LoopbackHub
from tests.waiting import PATIENCE, wait_until

SIZE = 100_000


def numbered(hub: LoopbackHub, make_source: Any, config: AcquireConfig, count: int) -> tuple[Source, Listing]:
    """A source of ``count`` files of SIZE bytes, each filled with its number."""
    hub.add_dataset("org/name", {f"data/{number}": bytes([number]) * SIZE for number in range(count)})
    source = make_source(HubOrigin(repo="org/name", revision="main", files=["data/*"]))
    return source, list_files(source, config)


def held(config: AcquireConfig) -> list[str]:
    """Names of the files in the cache."""
    return sorted(path.name for path in (config.cache / "datasets").rglob("*") if path.is_file())


def fetch_in_child(source: Source, listing: Listing, config: AcquireConfig, ready: Any, out: Any) -> None:
    ready.wait(30)
    out.put(len(fetch(source, listing, listing.files[0], config).read_bytes()))


@pytest.mark.parametrize("limit", [None, 10 * SIZE])
def test_processes_that_want_one_file_download_it_once(hub, config, make_source, limit):
    config.cache_limit = limit
    source, listing = numbered(hub, make_source, config, 1)
    hub.faults.slow("/lfs/", seconds=0.2)
    context = multiprocessing.get_context("spawn")
    ready, out = context.Event(), context.Queue()
    children = [
        context.Process(target=fetch_in_child, args=(source, listing, config, ready, out), daemon=True)
        for _ in range(2)
    ]
    for child in children:
        child.start()
    ready.set()
    assert [out.get(timeout=PATIENCE) for _ in children] == [SIZE, SIZE]
    for child in children:
        child.join(PATIENCE)
    assert hub.sent("/lfs/") == SIZE


def test_released_files_make_room_least_recently_used_first(hub, config, make_source):
    config.cache_limit = 3 * SIZE
    source, listing = numbered(hub, make_source, config, 5)
    for number in (0, 1, 2):
        fetch(source, listing, listing.files[number], config)
    for number in (1, 0, 2):
        release(source, listing.files[number], config)
    fetch(source, listing, listing.files[3], config)
    assert held(config) == ["0", "2", "3"]
    fetch(source, listing, listing.files[0], config)
    fetch(source, listing, listing.files[4], config)
    assert held(config) == ["0", "3", "4"]
    for number in (0, 3, 4):
        release(source, listing.files[number], config)


def test_a_fetch_waits_for_files_in_use(hub, config, make_source, monkeypatch):
    config.cache_limit = SIZE
    source, listing = numbered(hub, make_source, config, 2)
    first = fetch(source, listing, listing.files[0], config)
    timer = threading.Timer(0.5, release, (source, listing.files[0], config))
    started = time.monotonic()
    timer.start()
    second = fetch(source, listing, listing.files[1], config)
    assert time.monotonic() - started >= 0.5
    assert (first.exists(), second.exists()) == (False, True)
    monkeypatch.setattr(store, "STALL_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"waited .* for 100,000 bytes of the cache.*fewer workers"):
        fetch(source, listing, listing.files[0], config)
    release(source, listing.files[1], config)


def test_a_dead_process_does_not_hold_its_files(hub, config, make_source):
    config.cache_limit = SIZE
    source, listing = numbered(hub, make_source, config, 2)
    context = multiprocessing.get_context("spawn")
    ready, out = context.Event(), context.Queue()
    ready.set()
    child = context.Process(target=fetch_in_child, args=(source, listing, config, ready, out), daemon=True)
    child.start()
    assert out.get(timeout=PATIENCE) == SIZE
    child.join(PATIENCE)
    fetch(source, listing, listing.files[1], config)
    assert held(config) == ["1"]
    release(source, listing.files[1], config)


def test_a_file_beyond_the_bound_is_refused(hub, config, make_source):
    config.cache_limit = SIZE - 1
    source, listing = numbered(hub, make_source, config, 1)
    with pytest.raises(UserError, match="data/0: the file is 100,000 bytes long, but --cache-limit is 99,999"):
        fetch(source, listing, listing.files[0], config)


def test_downloads_that_were_kept_are_never_deleted(hub, config, make_source):
    source, listing = numbered(hub, make_source, config, 3)
    fetch(source, listing, listing.files[0], config)
    release(source, listing.files[0], config)
    bounded = AcquireConfig(cache=config.cache, cache_limit=SIZE, keep=False)
    for number in (0, 1, 2):
        fetch(source, listing, listing.files[number], bounded)
        release(source, listing.files[number], bounded)
    assert held(config) == ["0"]


def test_a_file_goes_with_the_last_unit_that_needs_it(hub, config, make_source):
    config.keep = False
    source, listing = numbered(hub, make_source, config, 2)
    with Prefetcher({"s": source}, {"s": listing}, [("s", "data/0"), ("s", "data/0"), ("s", "data/1")], config):
        fetch(source, listing, listing.files[0], config)
        release(source, listing.files[0], config)
        assert "0" in held(config)
        fetch(source, listing, listing.files[0], config)
        release(source, listing.files[0], config)
        assert "0" not in held(config)
        fetch(source, listing, listing.files[1], config)
        release(source, listing.files[1], config)
    assert held(config) == []
    assert hub.sent("/lfs/") == 2 * SIZE


def test_a_file_goes_though_its_last_unit_ends_while_it_is_still_being_fetched_ahead(
    hub, config, make_source, monkeypatch
):
    config.keep = False
    source, listing = numbered(hub, make_source, config, 1)
    complete, units = store.Entry.complete, iter([0])

    def seen(entry: store.Entry) -> bool:
        if done := bool(complete.fget(entry)):
            for _ in units:  # the fetcher holds the file, and its only unit comes and goes
                fetch(source, listing, listing.files[0], config)
                release(source, listing.files[0], config)
                assert held(config) == ["0"]
        return done

    monkeypatch.setattr(store.Entry, "complete", property(seen))
    with Prefetcher({"s": source}, {"s": listing}, [("s", "data/0")], config) as prefetcher:
        for thread in prefetcher._threads:
            thread.join(30)
    assert next(units, None) is None
    assert held(config) == []


def test_what_a_killed_build_left_is_deleted_by_the_next(hub, config, make_source):
    source, listing = numbered(hub, make_source, config, 2)
    bounded = AcquireConfig(cache=config.cache, cache_limit=2 * SIZE)
    for number in (0, 1):
        fetch(source, listing, listing.files[number], bounded)
        release(source, listing.files[number], bounded)
    config.keep = False
    with Prefetcher({"s": source}, {"s": listing}, [("s", "data/1")], config):
        assert held(config) == ["1"]


def test_prefetching_stays_ahead_within_the_bound(hub, config, make_source):
    config.cache_limit = 3 * SIZE
    source, listing = numbered(hub, make_source, config, 8)
    order = [("s", file.name) for file in listing.files]
    most = 0
    with Prefetcher({"s": source}, {"s": listing}, order, config, threads=2):
        assert wait_until(lambda: len(held(config)) == 3)
        for number, file in enumerate(listing.files):
            path = fetch(source, listing, file, config)
            assert path.read_bytes() == bytes([number]) * SIZE
            most = max(most, _bytes(config.cache))
            release(source, file, config)
    assert most <= 3 * SIZE
    assert hub.sent("/lfs/") == 8 * SIZE


def test_units_in_another_order_than_planned_still_finish(hub, config, make_source):
    config.cache_limit = 2 * SIZE
    source, listing = numbered(hub, make_source, config, 6)
    order = [("s", file.name) for file in listing.files]
    with Prefetcher({"s": source}, {"s": listing}, order, config, threads=2):
        for number in (5, 3, 0, 1, 4, 2):
            fetch(source, listing, listing.files[number], config)
            release(source, listing.files[number], config)


def test_a_prefetcher_stops_in_the_middle_of_a_download(hub, config, make_source):
    source, listing = numbered(hub, make_source, config, 1)
    hub.faults.slow("/lfs/", seconds=2)  # twice: long enough to be stopped within
    with Prefetcher({"s": source}, {"s": listing}, [("s", "data/0")], config):
        assert wait_until(lambda: hub.count("/lfs/"))
    assert not held(config)
    assert fetch(source, listing, listing.files[0], config).stat().st_size == SIZE
    assert hub.sent("/lfs/") < 2 * SIZE


def _bytes(cache: Path) -> int:
    """Bytes of downloads, whole and partial, in the cache; files may come and go while they are counted."""
    total = 0
    for top in ("datasets", "partial"):
        for path in (cache / top).rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size if path.is_file() and path.suffix != ".json" else 0
    return total
