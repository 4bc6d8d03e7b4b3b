"""The accounts of a bounded download folder: which files count, and which will be needed.

A SQLite file under a lock of ours, so that an entry costs the same however many there are. SQLite's own locks and
shared memory are left out: file systems that machines share often lack them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from corpus.acquire.disk import lock_path
from corpus.base.files import disk_errors
from corpus.base.locks import locked

FILE = "ledger.sqlite"
TABLES = """
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX files_used ON files (used);
CREATE TABLE needs (path TEXT PRIMARY KEY, units INTEGER NOT NULL, rank INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX needs_rank ON needs (rank);
CREATE TABLE sums (tick INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO sums VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON files BEGIN UPDATE sums SET bytes = bytes + new.size; END;
CREATE TRIGGER removed AFTER DELETE ON files BEGIN UPDATE sums SET bytes = bytes - old.size; END;
PRAGMA user_version = 1;
"""


class Ledger:
    """The accounts, held alone by :func:`ledger`. ``paths`` are relative to the cache."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def _one(self, query: str, *values: object) -> int | None:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    @property
    def tick(self) -> int:
        """Rises with every change."""
        return self._one("SELECT tick FROM sums") or 0

    @property
    def bytes(self) -> int:
        """Of all files that count."""
        return self._one("SELECT bytes FROM sums") or 0

    def size(self, path: str) -> int | None:
        """Bytes of a file that counts, or None."""
        return self._one("SELECT size FROM files WHERE path = ?", path)

    def add(self, path: str, size: int) -> None:
        """Count a file from now on."""
        self.remove(path)
        self._db.execute("INSERT INTO files VALUES (?, ?, 0)", (path, size))
        self.touch(path)

    def touch(self, path: str) -> None:
        """Note that a file was used."""
        if self.size(path) is not None:
            self._db.execute("UPDATE sums SET tick = tick + 1")
            self._db.execute("UPDATE files SET used = (SELECT tick FROM sums) WHERE path = ?", (path,))

    def remove(self, path: str) -> None:
        """Count a file no longer."""
        self._db.execute("DELETE FROM files WHERE path = ?", (path,))

    def is_needed(self, path: str) -> bool:
        """Whether a unit still to be done needs the file."""
        return self._one("SELECT units FROM needs WHERE path = ?", path) is not None

    def done(self, path: str) -> None:
        """One unit that needed the file is done."""
        self._db.execute("UPDATE needs SET units = units - 1 WHERE path = ?", (path,))
        self._db.execute("DELETE FROM needs WHERE path = ? AND units <= 0", (path,))

    def plan(self, paths: Sequence[str]) -> None:
        """Take ``paths``, one a unit and in order, for what will be needed, in place of an earlier plan."""
        needs: dict[str, list[int]] = {}
        for rank, path in enumerate(paths):
            needs.setdefault(path, [0, rank])[0] += 1
        self._db.execute("DELETE FROM needs")
        self._db.executemany("INSERT INTO needs VALUES (?, ?, ?)", ((path, *need) for path, need in needs.items()))

    def unneeded(self) -> Iterator[str]:
        """Files that no unit needs, least recently used first."""
        query = "SELECT path FROM files WHERE path NOT IN (SELECT path FROM needs) ORDER BY used"
        return self._paths(query)

    def ahead(self) -> Iterator[str]:
        """Files that units will need, the one needed last first."""
        return self._paths("SELECT path FROM needs JOIN files USING (path) ORDER BY rank DESC")

    def _paths(self, query: str) -> Iterator[str]:
        # Whoever reads them removes some meanwhile, so a few are looked up at a time.
        seen = 0
        while batch := self._db.execute(f"{query} LIMIT 50 OFFSET ?", (seen,)).fetchall():
            for (path,) in batch:
                yield path
            seen += sum(self.size(path) is not None for (path,) in batch)


@contextlib.contextmanager
def ledger(cache: Path) -> Iterator[Ledger]:
    """The accounts of a download folder, for this holder alone; what was changed is kept when nothing is raised."""
    with locked(lock_path(cache, "ledger")), disk_errors(cache):
        try:
            db = _opened(cache / FILE)
        except sqlite3.DatabaseError:
            # Cut short by a power failure: what it counted is no longer known.
            (cache / FILE).unlink(missing_ok=True)
            db = _opened(cache / FILE)
        with contextlib.closing(db), db:
            yield Ledger(db)


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(str(path))}?nolock=1", uri=True)
    try:
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            db.executescript(f"BEGIN; {TABLES} COMMIT;")
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db
