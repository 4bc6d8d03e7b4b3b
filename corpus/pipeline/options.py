"""What a build is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from corpus.acquire.models import AcquireConfig
from corpus.base.errors import UserError
from corpus.pipeline.cluster_options import Cluster
from corpus.records.manifest import build_name


@dataclass(frozen=True)
class Options:
    """The command line of a build."""

    recipe: Path
    out: Path
    """The data folder; for a build into a store, the work folder its streams are made in."""
    workers: int
    max_tokens: int | None
    only: list[str]
    engine: str | None
    dry_run: bool
    mirror: Path | None
    cache_limit: int | None
    keep_downloads: bool
    stand_ins: bool
    keep_removed: bool
    offline: bool
    cluster: Cluster | None = None
    """Where the units are made; None is this machine."""
    store: str | None = None
    """s3://bucket/prefix that the finished build is uploaded to."""
    private_store: bool = False
    refresh: bool = False
    """Ask anew where branches stand and what lists hold."""

    def build_name(self, recipe: str) -> str:
        """The build's folder in the data folder: a trial of a few tokens never replaces the whole build."""
        return build_name(recipe, self.max_tokens)

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.out.resolve()

    @property
    def acquire(self) -> AcquireConfig:
        """How its downloads are made and kept."""
        return AcquireConfig(
            cache=self.data / "downloads",
            mirror=self.mirror.resolve() if self.mirror else None,
            cache_limit=self.cache_limit,
            keep=self.keep_downloads,
            offline=self.offline,
            refresh=self.refresh,
            base_dir=self.recipe.resolve().parent,
        )


def store_and_folder(out: str, work: Path | None) -> tuple[str | None, Path]:
    """(the store to upload to or None, the folder to build in) of ``--out`` and ``--work``."""
    if not out.startswith("s3://"):
        if work is not None:
            raise UserError("is for --out s3://...", where="--work", fix="A local build is made in --out itself.")
        return None, Path(out)
    return out.rstrip("/"), work or Path(
        ".build", re.sub(r"[^A-Za-z0-9.-]+", "-", out.removeprefix("s3://")).strip("-")
    )
