"""The accounts of a bounded download folder: sums that hold, many processes, no dependence on SQLite's own locks."""

from __future__ import annotations

import multiprocessing
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.acquire.ledger import FILE, ledger

PATHS = [f"datasets/o/r/{number}" for number in range(6)]
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "touch", "done"]), st.sampled_from(PATHS), st.integers(0, 9)),
    max_size=30,
)


@settings(max_examples=30, deadline=None)
@given(STEPS, st.lists(st.sampled_from(PATHS), max_size=12))
def test_it_keeps_what_it_is_told(steps: list[tuple[str, str, int]], planned: list[str]) -> None:
    files: dict[str, int] = {}
    used: list[str] = []
    needs = {path: planned.count(path) for path in planned}
    with tempfile.TemporaryDirectory() as cache:
        with ledger(Path(cache)) as book:
            book.plan(planned)
        for kind, path, size in steps:
            with ledger(Path(cache)) as book:
                if kind == "add":
                    book.add(path, size)
                    files[path] = size
                elif kind == "remove":
                    book.remove(path)
                    files.pop(path, None)
                elif kind == "done":
                    book.done(path)
                    needs[path] = needs.get(path, 0) - 1
                else:
                    book.touch(path)
                if kind in ("add", "touch") and path in files:
                    used = [other for other in used if other != path] + [path]
        with ledger(Path(cache)) as book:
            assert book.bytes == sum(files.values())
            assert {path: book.size(path) for path in PATHS} == {path: files.get(path) for path in PATHS}
            assert [path for path in PATHS if book.is_needed(path)] == [p for p in PATHS if needs.get(p, 0) > 0]
            idle = [path for path in used if path in files and needs.get(path, 0) <= 0]
            assert list(book.unneeded()) == idle
            ahead = [path for path in dict.fromkeys(planned) if path in files and needs[path] > 0]
            assert list(book.ahead()) == ahead[::-1]


def test_entries_may_go_while_they_are_walked(tmp_path: Path) -> None:
    with ledger(tmp_path) as book:
        for number in range(300):
            book.add(f"{number:03}", 1)
        for path in book.unneeded():
            if int(path) % 3:
                book.remove(path)
        assert list(book.unneeded()) == [f"{number:03}" for number in range(0, 300, 3)]
        assert book.bytes == 100


def _add(cache: Path, first: int) -> None:
    for number in range(first, first + 25):
        with ledger(cache) as book:
            book.add(f"file {number}", 3)


def test_many_processes_lose_nothing(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_add, args=(tmp_path, first * 25)) for first in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with ledger(tmp_path) as book:
        assert (book.bytes, len(list(book.unneeded()))) == (600, 200)


def test_what_is_asked_often_never_walks_all_files(tmp_path: Path) -> None:
    with ledger(tmp_path) as book:
        book.plan(["a"])
    with sqlite3.connect(tmp_path / FILE) as db:
        for query in ("SELECT bytes FROM sums", "SELECT size FROM files WHERE path = 'a'"):
            plan = db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert not any("SCAN files" in row[3] for row in plan)


def test_a_damaged_ledger_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all" * 100)
    with ledger(tmp_path) as book:
        book.add("a", 5)
    with ledger(tmp_path) as book:
        assert book.bytes == 5
