"""Opening one stream: which of its shards are here."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from streaming import MDSWriter, Stream
from streaming.base.world import World

from training.data.stream import PIECE, MixtureStream

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


@pytest.mark.parametrize("damage", ["none", "empty", "cut", "flipped", "appended"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_shard_is_unpacked_whole_and_checked_or_not_at_all(tmp_path: Path, remote: bool, damage: str) -> None:
    rows = np.random.default_rng(0).integers(0, 100, (600, 1000)).astype(np.uint16)
    with MDSWriter(
        out=str(tmp_path / "s"), columns={"ids": "ndarray:uint16:1000"}, compression="zstd", hashes=["xxh64"]
    ) as writer:
        for row in rows:
            writer.write({"ids": row})
    (packed,) = (tmp_path / "s").glob("*.zstd")
    content = packed.read_bytes()
    assert len(content) > 2 * PIECE
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    damaged = {"none": content, "empty": b"", "cut": content[:-1000], "flipped": flipped, "appended": content + b"x"}
    packed.write_bytes(damaged[damage])
    local = tmp_path / ("cache" if remote else "s")
    stream = MixtureStream("web", local, str(tmp_path / "s") if remote else None, seq_len=999)
    stream.apply_default(
        {"remote": stream.remote, "local": stream.local, "split": None, "download_retry": 2, "download_timeout": 60,
         "validate_hash": "xxh64", "keep_zip": None}
    )  # fmt: skip
    (shard,) = stream.get_shards(World.detect(), False)
    stored = {"index.json", packed.name}
    if damage == "none":
        stream.prepare_shard(shard)
        assert all((shard[number]["ids"] == row).all() for number, row in enumerate(rows))
        made = {packed.stem}
    else:
        with pytest.raises(ValueError, match=f"Checksum failure: .*{packed.name}"):
            stream.prepare_shard(shard)
        made = set()
    assert {path.name for path in local.iterdir()} == (made if remote else stored | made)
    assert packed.read_bytes() == damaged[damage], "built data is never written to"
