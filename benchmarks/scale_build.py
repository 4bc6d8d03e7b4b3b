"""What a build does once per stream, at the size of FineWeb-Edu in files and units: seconds and memory at 1x, 4x, 16x.

    python -m benchmarks.scale_build --units 2500 10000 40000

Each size gets a stream of that many units, six shards in each index, one upstream file a unit, written by this script;
the shards are of one sample, since their size is not what is measured. Planning, completing, reading and
fingerprinting are the product's own, each size in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, show

SHARDS = 6
SEQ_LEN = 15


def main() -> None:
    """Print the table, a row a size."""
    parser = arguments(__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=[2_500, 10_000, 40_000])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.units[0])))
        return
    rows = []
    for units in args.units:
        command = [sys.executable, "-m", "benchmarks.scale_build", "--one", "--units", str(units)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    table = [[row[column] for column in rows[0]] for row in rows]
    show("once a stream", list(rows[0]), table, args.out)


def measure(units: int) -> dict[str, Any]:
    """Seconds of each step for a stream of ``units`` units, and the peak memory of the process in MB."""
    from corpus.acquire.models import AcquireConfig, SourceFile, listing_of
    from corpus.acquire.origins import FilesOrigin
    from corpus.catalogue.models import Source
    from corpus.documents.adapters import FieldAdapter
    from corpus.records.stream import Tokenizer, load_stream
    from corpus.streams.finish import complete_stream
    from corpus.streams.made import units_to_make
    from corpus.streams.plan import StreamPlan, load_plan

    row: dict[str, Any] = {"units": units, "shards": units * SHARDS}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        row[name] = round(time.perf_counter() - started, 3)
        return result

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        files = [SourceFile(f"CC/{n:06d}.parquet", f"/nowhere/{n}", 1 << 27, f"sha256:{n:064x}") for n in range(units)]
        origin = FilesOrigin(paths=["CC/*.parquet"])
        source = Source(title="t", origin=origin, format="parquet", licence="CC0-1.0", adapter=FieldAdapter())
        tokenizer = Tokenizer(name="t", sha256="0" * 64, vocab_size=1000, bos_id=0, path="tokenizers/t")
        plan = StreamPlan(
            entry="web", source_name="web", source=source, origin=origin, listing=listing_of(files, "1"),
            tokenizer=tokenizer, engine="tokenizers", seq_len=SEQ_LEN, boundary="bos", cleaning=[], malformed="drop",
            unit_bytes=1 << 28, token_limit=None, seed=17, data=data, acquire=AcquireConfig(cache=data, base_dir=data),
            keep_removed=False,
        )  # fmt: skip
        assert len(timed("plan units s", lambda: plan.units)) == units
        timed("key s", lambda: plan.key)
        saved = timed("save plan s", lambda: plan.save(data))
        timed("load plan s", lambda: len(load_plan(saved).units))
        timed("write units (not ours) s", lambda: _write_units(plan))
        timed("what is missing s", lambda: units_to_make(plan))
        record = timed("complete stream s", lambda: complete_stream(plan))
        timed("fingerprint s", lambda: record.fingerprint)
        assert timed("read record s", lambda: load_stream(plan.folder)).samples == units * SHARDS
        row["index.json MB"] = round((plan.folder / "index.json").stat().st_size / 1e6, 1)
        row["stream.json MB"] = round((plan.folder / "stream.json").stat().st_size / 1e6, 1)
    lines = Path("/proc/self/status").read_text().splitlines()
    row["peak MB"] = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024
    return row


def _write_units(plan: Any) -> None:
    """Every unit's folder as a worker leaves it, with one sample a shard."""
    import numpy as np

    from corpus.records.stream import Documents, Tokens, UnitRecord
    from corpus.streams.mds import ShardWriter

    rows = np.zeros((1, SEQ_LEN + 1), plan.dtype)
    template = plan.data / "template"
    template.mkdir()
    with ShardWriter(template, SEQ_LEN, plan.dtype) as writer:
        writer.write(rows)
    index = json.loads((template / "index.json").read_bytes())
    shard = next(path for path in template.iterdir() if path.name != "index.json")
    entry = index["shards"][0]
    part = "zip_data" if entry["zip_data"] else "raw_data"
    content = shard.read_bytes()
    for unit in plan.units:
        folder = plan.unit_folder(unit)
        folder.mkdir(parents=True)
        entries = []
        for number in range(SHARDS):
            name = entry[part]["basename"].replace("00000", f"{number:05d}", 1)
            entries.append({**entry, part: {**entry[part], "basename": name}})
            (folder / name).write_bytes(content)
        (folder / "index.json").write_text(json.dumps({**index, "shards": entries}))
        (folder / "tail.bin").write_bytes(b"")
        written = SHARDS * (SEQ_LEN + 1)
        record = UnitRecord(
            unit=unit.index, pieces=[(piece.file, piece.start, piece.end) for piece in unit.pieces],
            documents=Documents(read=SHARDS, kept=SHARDS), text_bytes=written,
            tokens=Tokens(text=written - SHARDS, boundary=SHARDS, written=written), samples=SHARDS,
            lengths={"4": SHARDS},
        )  # fmt: skip
        (folder / "unit.json").write_text(json.dumps(record.model_dump(mode="json")))


if __name__ == "__main__":
    main()
