"""Our shards are the library's: the same bytes, the same index, read back by its reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.streams.mds import ShardWriter, read_shard


def _rows(count: int, seq_len: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 1 << 16, (count, seq_len + 1)).astype(dtype)


def _raw(folder: Path) -> dict[str, bytes]:
    return {path.name: zstandard.decompress(path.read_bytes()) for path in folder.glob("*.zstd")}


def _index(folder: Path) -> dict[str, object]:
    """index.json without what depends on the compressor's build: the stored sizes and hashes."""
    index = json.loads((folder / "index.json").read_bytes())
    for shard in index["shards"]:
        del shard["zip_data"]["bytes"], shard["zip_data"]["hashes"]
    return index


def _by_library(folder: Path, rows: np.ndarray, shard_bytes: int) -> None:
    from streaming import MDSWriter

    columns = {"ids": f"ndarray:{rows.dtype}:{rows.shape[1]}"}
    with MDSWriter(
        out=str(folder), columns=columns, compression="zstd", hashes=["xxh64"], size_limit=shard_bytes
    ) as out:
        for row in rows:
            out.write({"ids": row})


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    count=st.integers(0, 40),
    seq_len=st.integers(1, 9),
    dtype=st.sampled_from(["uint16", "uint32"]),
    shard_bytes=st.integers(400, 900),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_shards_hold_the_bytes_that_the_library_writes(tmp_path_factory, count, seq_len, dtype, shard_bytes, cuts):
    ours, theirs = (tmp_path_factory.mktemp("shards") for _ in range(2))
    rows = _rows(count, seq_len, dtype)
    with ShardWriter(ours, seq_len, dtype, shard_bytes) as out:
        for block in np.split(rows, sorted(min(cut, count) for cut in cuts)):  # blocks of any size, empty ones too
            out.write(block)
    _by_library(theirs, rows, shard_bytes)
    assert _raw(ours) == _raw(theirs)
    assert _index(ours) == _index(theirs)


def test_the_library_reads_them_and_verifies_their_hashes(tmp_path):
    from streaming import StreamingDataset

    rows = _rows(50, 7, "uint32")
    with ShardWriter(tmp_path, 7, "uint32", 800) as out:
        out.write(rows)
    read = StreamingDataset(local=str(tmp_path), batch_size=1, shuffle=False, validate_hash="xxh64")
    assert len(read.shards) > 2
    assert np.array_equal(np.stack([read[index]["ids"] for index in range(50)]), rows)


def test_shards_are_read_back_whole(tmp_path):
    rows = _rows(50, 7, "uint16")
    with ShardWriter(tmp_path, 7, "uint16", 800) as out:
        out.write(rows)
    shards = json.loads((tmp_path / "index.json").read_bytes())["shards"]
    assert np.array_equal(np.concatenate([read_shard(tmp_path, shard) for shard in shards]), rows)


def test_shards_end_at_64_mib_and_a_failure_leaves_no_index(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path, 1023, "uint32") as out:
        out.write(np.zeros((17_000, 1024), np.uint32))
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["shard.00000.mds.zstd"]
    assert (64 << 20) - 4100 < len(_raw(tmp_path)["shard.00000.mds.zstd"]) <= 64 << 20
