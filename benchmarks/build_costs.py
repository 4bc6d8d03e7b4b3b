"""`python -m benchmarks.build_costs`: what file formats and cleaning steps cost, beside the plain build.

Each row is one whole `python -m corpus.build` over the same documents. datatrove's quality filters are slower by
orders of magnitude, so they read a little English prose (they drop code) and stand apart.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.builds import build_arguments, build_command, make_tokenizer, timed, write_jsonl, write_recipe
from benchmarks.common import code_documents, prose_documents, show

PARTS = 4
"""Input files; a compressed one is a unit of its own, so that workers share the work."""


def main() -> None:
    """Entry point."""
    parser = build_arguments(__doc__)
    parser.add_argument("--megabytes", type=int, default=500, help="input of each build")
    parser.add_argument("--slow-megabytes", type=int, default=4, help="prose for the quality filters")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        rows = list(_rows(Path(folder), args))
    plain = next(wall for _, _, wall, _ in rows)
    show(
        f"Builds with {args.workers} workers (Llama 3 tokenizer)",
        ("build", "MB", "seconds", "CPU s", "MB/s", "x plain"),
        [(*row, row[1] / row[2], row[2] / plain if row[1] == args.megabytes else "") for row in rows],
        args.out,
    )


def _rows(work: Path, args: argparse.Namespace) -> Iterator[tuple[str, int, float, float]]:
    """(name, megabytes, wall seconds, CPU seconds) of each build."""
    plain = _inputs(work, args.megabytes)
    formats = {"jsonl": plain, "jsonl.gz": [], "jsonl.zst": [], "parquet": []}
    for path in plain:
        formats["jsonl.gz"].append(_gzipped(path))
        formats["jsonl.zst"].append(_zstandard(path))
        formats["parquet"].append(_parquet(path))
    prose = work / "prose.jsonl"
    write_jsonl(prose, prose_documents(args.slow_megabytes * 1_000_000))
    evaluation = work / "evaluation.jsonl"
    write_jsonl(evaluation, _examples(2000))
    against = {"step": "decontaminate", "against": [str(evaluation)]}
    ways: list[tuple[str, int, list[Path], list[dict[str, Any]]]] = [
        (name, args.megabytes, files, []) for name, files in formats.items()
    ]
    ways += [
        ("jsonl, exact dedup", args.megabytes, plain, [{"step": "exact_dedup"}]),
        ("jsonl, decontamination", args.megabytes, plain, [against]),
        ("prose", args.slow_megabytes, [prose], []),
        ("prose, Gopher quality", args.slow_megabytes, [prose], [{"step": "gopher_quality"}]),
        ("prose, Gopher repetition", args.slow_megabytes, [prose], [{"step": "gopher_repetition"}]),
        ("prose, minhash", args.slow_megabytes, [prose], [{"step": "minhash"}]),
    ]
    data = work / "data"
    for number, (name, megabytes, files, cleaning) in enumerate(ways):
        recipe = write_recipe(work / f"way_{number}.yaml", files, cleaning)
        if not number:
            make_tokenizer(recipe, data)
        row = (name, megabytes, *timed(build_command(recipe, data, "--workers", str(args.workers))))
        print(f"{name}: {row[2]:.1f} s", file=sys.stderr)
        yield row
        shutil.rmtree(data / "streams", ignore_errors=True)


def _inputs(work: Path, megabytes: int) -> list[Path]:
    paths = [work / f"plain{part}.jsonl" for part in range(PARTS)]
    documents = code_documents(megabytes * 1_000_000)
    for path in paths[:-1]:
        write_jsonl(path, _share(documents, megabytes * 1_000_000 // PARTS))
    write_jsonl(paths[-1], documents)
    return paths


def _share(documents: Iterator[str], size: int) -> Iterator[str]:
    for text in documents:
        yield text
        size -= len(text)
        if size <= 0:
            return


def _examples(count: int) -> Iterator[str]:
    """Evaluation examples of a hundred words that no input contains: code with its words spelled backwards."""
    words: list[str] = []
    for text in code_documents(1 << 40, seed=1):
        words += (word[::-1] for word in text.split())
        while len(words) >= 100:
            yield " ".join(words[:100])
            words = words[100:]
            count -= 1
            if not count:
                return


def _gzipped(path: Path) -> Path:
    target = path.with_suffix(".jsonl.gz")
    with path.open("rb") as source, gzip.open(target, "wb", compresslevel=6) as out:
        shutil.copyfileobj(source, out, 1 << 20)
    return target


def _zstandard(path: Path) -> Path:
    import zstandard

    target = path.with_suffix(".jsonl.zst")
    with path.open("rb") as source, target.open("wb") as out:
        zstandard.ZstdCompressor(level=3).copy_stream(source, out)
    return target


def _parquet(path: Path) -> Path:
    import pyarrow.json
    import pyarrow.parquet

    target = path.with_suffix(".parquet")
    options = pyarrow.json.ReadOptions(block_size=256 << 20)
    table = pyarrow.json.read_json(path, options)
    pyarrow.parquet.write_table(table, target, compression="zstd", row_group_size=1000)
    return target


if __name__ == "__main__":
    main()
