"""Locks on a shared data folder."""

import os
from pathlib import Path

from corpus.base.locks import Lock


def test_the_next_user_of_the_group_can_take_the_lock_too(tmp_path: Path) -> None:
    """It is opened for writing, so a file that only its first user may write would be theirs for good."""
    before = os.umask(0o002)
    try:
        Lock(tmp_path / "lock").close()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664
