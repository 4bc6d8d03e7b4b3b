"""Opening one stream: which of its shards are here."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from streaming import MDSWriter, Stream
from streaming.base.world import World

from training.stream import MixtureStream

STATES = list(product((False, True), repeat=2))
"""Whether a shard is here unpacked, and whether packed."""


def folder_in_every_state(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    (folder / "units" / "000000").mkdir(parents=True)
    shards = sorted(folder.glob("*.mds*"))
    for (raw, packed), path in zip(STATES, shards, strict=True):
        if raw:
            path.with_suffix("").write_bytes(b"unpacked")
        if not packed:
            path.unlink()
    return folder


@pytest.mark.parametrize("remote", [False, True])
def test_shards_are_found_and_mended_as_the_library_does(tmp_path: Path, remote: bool) -> None:
    source = tmp_path / "source"
    columns = {"ids": "ndarray:uint16:9"}
    with MDSWriter(
        out=str(source), columns=columns, compression="zstd", hashes=["xxh64"], size_limit=1 << 10
    ) as writer:
        while len(list(source.glob("*.mds*"))) < len(STATES):
            writer.write({"ids": np.arange(9, dtype=np.uint16)})
        writer.write({"ids": np.arange(9, dtype=np.uint16)})
    for extra in sorted(source.glob("*.mds*"))[len(STATES) :]:
        extra.unlink()
    found = []
    for kind in ("library", "ours"):
        folder = folder_in_every_state(tmp_path / kind, source)
        stream = MixtureStream("a", folder, str(source) if remote else None, 8)
        stream.safe_keep_zip = not remote
        shards = stream.get_shards(World.detect(), False)
        sizes = np.zeros(len(shards), np.int64)
        (Stream if kind == "library" else MixtureStream).set_up_local(stream, shards, sizes)
        found.append((sizes.tolist(), sorted(path.name for path in folder.rglob("*"))))
    assert found[0] == found[1] and any(found[0][0])
