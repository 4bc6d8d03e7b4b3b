"""Where a node keeps the unpacked shards it reads: one folder per user, and with a limit one per run.

CACHE/user-UID/streams/FINGERPRINT/    shared by all runs of the user, which only ever add to it
CACHE/user-UID/runs/RUN/FINGERPRINT/   with --cache-limit: a run that deletes shards must be alone with them
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from corpus.base.errors import UserError
from corpus.base.files import fingerprint
from training.run.options import Options


def cache_folder(options: Options) -> Path:
    """The folder under which this command unpacks streams, made where it is missing; raises UserError."""
    user = os.getuid()
    root = options.cache.absolute()
    own = root / f"user-{user}"
    try:
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            # Whoever is first must not lock out the other users by their umask, nor be able to delete theirs.
            with contextlib.suppress(PermissionError):
                root.chmod(0o1777)
        own.mkdir(mode=0o700, exist_ok=True)
        if own.stat().st_uid != user:
            raise UserError("belongs to another user", where=str(own), fix="Name another folder with --cache.")
        if not os.access(own, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(
            f"the cache of unpacked shards cannot be made: {error.strerror}", where=str(own),
            fix="Name a folder of this node with --cache (or in CORPUS_CACHE).",
        ) from None  # fmt: skip
    if options.cache_limit is None:
        return own / "streams"
    return own / "runs" / fingerprint([str(options.out.absolute()), options.run_name, options.size,
                                       str(options.recipe), list(options.phases)])[:12]  # fmt: skip
