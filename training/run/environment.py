"""What a start of a run ran with: versions of Python and the packages, the state of the source tree."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "mosaicml", "mosaicml-streaming", "numpy", "safetensors", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a run depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of this source tree and whether it has changes; None outside a git checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", here, *arguments], capture_output=True, text=True, check=True, timeout=10
            ).stdout
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "changed": bool(status.strip())}
