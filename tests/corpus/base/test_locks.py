"""Locks: who holds one, on file systems with flock, without it, and where it does not reach other machines."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpus.base import locks
from corpus.base.errors import UserError
from corpus.base.locks import Claim, Lock, locked
from tests.conftest import environment

HOLD = """
import fcntl, sys, time, errno
from pathlib import Path
from corpus.base.locks import Lock
if sys.argv[2]:
    def refused(handle, how): raise OSError(int(sys.argv[2]), "no locks")
    fcntl.flock = refused
lock = Lock(Path(sys.argv[1]))
assert lock.exclusive(wait=False)
print("held", flush=True)
time.sleep(100)
"""


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [0, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_one_process_holds_it_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "a.lock"
    if number:
        refuse(monkeypatch, number)
    command = [sys.executable, "-c", HOLD, str(path), str(number) if number else ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        lock = Lock(path)
        assert not lock.exclusive(wait=False)
        holder.kill()
        holder.wait()
        assert lock.exclusive(wait=False)
        assert not Lock(path).exclusive(wait=False)
        lock.close()
    with locked(path):
        pass


def test_a_file_system_without_locks_is_named_once(tmp_path, monkeypatch, capsys):
    refuse(monkeypatch, errno.ENOSYS)
    for name in ("a", "b"):
        with locked(tmp_path / name):
            pass
    said = capsys.readouterr().err
    assert said.count("note:") == 1 and str(tmp_path) in said and "Function not implemented" in said
    with pytest.raises(UserError, match=r"no locks.*--cache-limit"):
        Lock(tmp_path / "c").share()


def test_other_failures_are_not_taken_for_another_holder(tmp_path, monkeypatch):
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        Lock(tmp_path / "a").exclusive(wait=False)


def test_a_holder_elsewhere_is_believed_as_long_as_it_gives_signs_of_life(tmp_path):
    path = tmp_path / "a.claim"
    path.write_text(json.dumps({"host": "elsewhere", "space": "x", "pid": 1, "started": "1", "token": "t"}))
    claim = Claim(path)
    assert not claim.take()
    old = time.time() - 2 * locks.STALE
    os.utime(path, (old, old))
    assert claim.take()
    assert time.time() - path.stat().st_mtime < locks.STALE
    assert not Claim(path).take()
    claim.release()
    assert not list(tmp_path.iterdir())


def test_signs_of_life_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.01)
    claim = Claim(tmp_path / "a.claim")
    assert claim.take()
    os.utime(tmp_path / "a.claim", (0, 0))
    deadline = time.monotonic() + 20
    while (tmp_path / "a.claim").stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / "a.claim").stat().st_mtime > 0
    claim.release()


def test_a_forked_child_does_not_give_up_its_parents_claim(tmp_path):
    claim = Claim(tmp_path / "a.claim")
    assert claim.take()
    child = os.fork()
    if child == 0:
        claim.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert not Claim(tmp_path / "a.claim").take()
    claim.release()


@pytest.mark.parametrize(
    ("options", "local"),
    [("flock", False), ("localflock", True), ("local_lock=none", False), ("nolock", True)],
)
def test_mounts_whose_locks_stay_on_one_machine_are_known(tmp_path, monkeypatch, options, local):
    place = str(tmp_path / "my disk").replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"40 21 0:50 / {place} rw,relatime shared:1 - lustre 10.0.0.1@tcp:/x rw,{options}\n"
    )
    monkeypatch.setattr(locks, "MOUNTS", mounts)
    locks.stays_here.cache_clear()
    (tmp_path / "my disk" / "data").mkdir(parents=True)
    (tmp_path / "my disk 2").mkdir()
    assert locks.stays_here(tmp_path / "my disk" / "data") is local
    assert locks.stays_here(tmp_path / "my disk 2") is False
    with locked(tmp_path / "my disk" / "data" / "a.lock"):
        assert (tmp_path / "my disk" / "data" / "a.lock.claim").exists() is local
        assert not Lock(tmp_path / "my disk" / "data" / "a.lock").exclusive(wait=False)
    locks.stays_here.cache_clear()


def test_a_lock_is_as_open_as_its_folder(tmp_path):
    tmp_path.chmod(0o775)
    before = os.umask(0o077)
    try:
        with locked(tmp_path / "a.lock"):
            assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_the_next_user_of_the_group_can_take_the_lock_too(tmp_path: Path) -> None:
    """It is opened for writing, so a file that only its first user may write would be theirs for good."""
    before = os.umask(0o002)
    try:
        Lock(tmp_path / "lock").close()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664
