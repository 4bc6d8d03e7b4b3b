"""A stream's samples read straight from its shards, in the stream's order, without changing anything on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.base.errors import UserError
from corpus.base.files import read_json


class StreamSamples:
    """Random access by shard; shards and samples are numbered as the training loader numbers them."""

    def __init__(self, folder: Path) -> None:
        """Read the index of the stream in `folder`; raises UserError when there is none."""
        self.folder = folder
        self._shards: list[dict[str, Any]] = read_json(folder / "index.json")["shards"]
        self.shard_samples: list[int] = [shard["samples"] for shard in self._shards]

    def read(self, shard: int) -> NDArray[Any]:
        """The ids of one shard, (samples, seq_len + 1) uint16 or uint32; raises UserError when it is damaged."""
        import xxhash
        from streaming.base.compression import decompress

        entry = self._shards[shard]
        _, dtype, width = entry["column_encodings"][0].split(":")
        part = entry["zip_data"] or entry["raw_data"]
        path = self.folder / part["basename"]
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
        if xxhash.xxh64(stored).hexdigest() != part["hashes"]["xxh64"]:
            raise UserError("does not match its hash", where=str(path), fix="Build the stream again.")
        raw = decompress(entry["compression"], stored) if entry["zip_data"] else stored
        # An MDS shard: the number of samples, the offset of each, a header, the samples; ours have one fixed size.
        begin = int.from_bytes(raw[4:8], "little")
        count = entry["samples"] * int(width)
        return np.frombuffer(raw, dtype, count, offset=begin).reshape(entry["samples"], int(width))
