"""MDS shards of rows of ids. They are written as streaming's MDSWriter would, but a block of rows at a time.

The library's writer is not used because importing it imports torch and transformers, seconds for every build and every
worker of a cluster, and because it encodes sample by sample (benchmarks/RESULTS.md has the figures). The suite proves
that its shards hold the same bytes and its index the same entries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from corpus.base.files import INDEX_FILE

COLUMN = "ids"
SHARD_BYTES = 64 << 20
"""Most bytes of a shard before compression, its head included."""
ZSTD_LEVEL = 3


class ShardWriter:
    """Writes samples into a folder: zstd shards, and on leaving index.json with an xxh64 hash of each."""

    def __init__(self, folder: Path, seq_len: int, dtype: str, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._row_bytes = (seq_len + 1) * np.dtype(dtype).itemsize
        self._config = {
            "version": 2,
            "format": "mds",
            "compression": "zstd",
            "hashes": ["xxh64"],
            "size_limit": shard_bytes,
            "column_names": [COLUMN],
            "column_encodings": [f"ndarray:{dtype}:{seq_len + 1}"],
            "column_sizes": [self._row_bytes],
        }
        self._config_data = json.dumps(self._config, sort_keys=True).encode()
        # Beside its bytes a sample takes 4 for its offset; the head is the number of samples, one more offset, the
        # configuration.
        self._capacity = max(1, (shard_bytes - 8 - len(self._config_data)) // (self._row_bytes + 4))
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._blocks: list[NDArray[Any]] = []
        self._samples = 0
        self._shards: list[dict[str, Any]] = []

    def write(self, rows: NDArray[Any]) -> None:
        """Append samples; ``rows`` has shape (n, seq_len + 1), is of the stream's dtype and is not changed later."""
        while len(rows):
            fitting = rows[: self._capacity - self._samples]
            self._blocks.append(np.ascontiguousarray(fitting))
            self._samples += len(fitting)
            rows = rows[len(fitting) :]
            if self._samples == self._capacity:
                self._flush()

    def _flush(self) -> None:
        head = 4 + 4 * (self._samples + 1) + len(self._config_data)
        offsets = head + self._row_bytes * np.arange(self._samples + 1)
        parts = [np.uint32(self._samples).tobytes(), offsets.astype(np.uint32).tobytes(), self._config_data]
        raw = b"".join([*parts, *(block.data for block in self._blocks)])
        compressed = self._compressor.compress(raw)
        name = f"shard.{len(self._shards):05d}.mds"
        (self._folder / f"{name}.zstd").write_bytes(compressed)
        entry = {
            "samples": self._samples,
            "raw_data": _facts(name, raw),
            "zip_data": _facts(f"{name}.zstd", compressed),
        }
        self._shards.append({**entry, **self._config})
        self._blocks, self._samples = [], 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            return
        if self._samples:
            self._flush()
        index = {"version": 2, "shards": self._shards}
        (self._folder / INDEX_FILE).write_text(json.dumps(index, sort_keys=True))


def read_shard(folder: Path, entry: dict[str, Any]) -> NDArray[Any]:
    """The samples of one shard, shape (samples, seq_len + 1); ``entry`` is its part of index.json."""
    raw = (folder / (entry["zip_data"] or entry["raw_data"])["basename"]).read_bytes()
    if entry["zip_data"]:
        raw = zstandard.ZstdDecompressor().decompress(raw, max_output_size=entry["raw_data"]["bytes"])
    _, dtype, row = entry["column_encodings"][0].split(":")
    samples, begin = np.frombuffer(raw, np.uint32, 2).tolist()
    return np.frombuffer(raw, dtype, samples * int(row), begin).reshape(samples, int(row))


def _facts(name: str, data: bytes) -> dict[str, Any]:
    return {"basename": name, "bytes": len(data), "hashes": {"xxh64": xxhash.xxh64(data).hexdigest()}}
