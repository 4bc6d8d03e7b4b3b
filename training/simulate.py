from __future__ import annotations
import json
from pathlib import Path
def write_index(folder: Path, *, samples: int, shard_samples: int, seq_len: int, dtype: str = "uint32") -> None:
    size = (seq_len + 1) * (4 if dtype == "uint32" else 2)
    counts = [shard_samples] * (samples // shard_samples) + [samples % shard_samples] * bool(samples % shard_samples)
    shards = [
        {
            "column_encodings": [f"ndarray:{dtype}:{seq_len + 1}"],
            "column_names": ["ids"],
            "column_sizes": [size],
            "compression": "zstd",
            "format": "mds",
            "hashes": ["xxh64"],
            "raw_data": {"basename": f"units/{n:07}.mds", "bytes": count * size, "hashes": {}},
            "samples": count,
            "size_limit": None,
            "version": 2,
            "zip_data": {"basename": f"units/{n:07}.mds.zstd", "bytes": count * size // 2, "hashes": {}},
        }
        for n, count in enumerate(counts)
    ]
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
