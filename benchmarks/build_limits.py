"""`python -m benchmarks.build_limits`: memory of a build's workers over a large input, and a start with all work done.

large     plain JSON lines of --gigabytes; the workers' largest resident memory in each fifth of the run
long      the same way with one document of 1 GB among short ones (dropped as too large) and one just short of the limit
finished  --files small files, built once; then the same command again, which finds everything done
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.builds import build_arguments, build_command, make_tokenizer, timed, write_jsonl, write_recipe
from benchmarks.common import code_documents, show
from corpus.documents.record import MAX_RECORD_BYTES


def main() -> None:
    """Entry point."""
    parser = build_arguments(__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--files", type=int, default=30_000)
    args = parser.parse_args()
    rows: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        make_tokenizer(write_recipe(work / "prepare.yaml", [_small(work / "one.jsonl")]), work / "data")
        for name, path in (("large", _large(work, args.gigabytes)), ("long", _long(work))):
            recipe = write_recipe(work / f"{name}.yaml", [path])
            seconds, peaks = _watched(build_command(recipe, work / "data", "--workers", str(args.workers)))
            fifths = " ".join(f"{peak / 1e9:.2f}" for peak in peaks)
            rows.append((f"{name}, {path.stat().st_size / 1e9:.1f} GB", seconds, f"GB per worker, by fifths: {fifths}"))
            path.unlink()
            shutil.rmtree(work / "data" / "streams")
        many = work / "many"
        many.mkdir()
        for number in range(args.files):
            _small(many / f"{number:06d}.jsonl", number)
        again = build_command(write_recipe(work / "finished.yaml", [many / "*.jsonl"]), work / "data")
        rows.append((f"{args.files:,} files, first build", timed(again)[0], ""))
        rows.append((f"{args.files:,} files, all done", timed(again)[0], ""))
    shortest = rows[-1][1]
    show(
        f"Builds with {args.workers} workers (Llama 3 tokenizer)",
        ("build", "seconds", "memory", "x all done"),
        [(*row, row[1] / shortest) for row in rows],
        args.out,
    )


def _small(path: Path, number: int = 0) -> Path:
    write_jsonl(path, (f"Document {number} of one short file. " * 20 for _ in range(3)))
    return path


def _large(work: Path, gigabytes: float) -> Path:
    write_jsonl(work / "large.jsonl", code_documents(int(gigabytes * 1e9)))
    return work / "large.jsonl"


def _long(work: Path) -> Path:
    """Short documents, one a little shorter than the limit for a record, one of 1 GB."""
    path = work / "long.jsonl"
    shorter = _joined(code_documents(1 << 40), MAX_RECORD_BYTES * 9 // 10)
    write_jsonl(path, itertools.chain(code_documents(20_000_000), shorter, _joined(code_documents(1 << 40), 10**9)))
    return path


def _joined(texts: Iterator[str], size: int) -> Iterator[str]:
    parts: list[str] = []
    while size > 0:
        parts.append(next(texts))
        size -= len(parts[-1])
    yield "\n".join(parts)


def _watched(command: list[str]) -> tuple[float, list[int]]:
    """(wall seconds, largest resident bytes of any worker in each fifth of the time) of a build."""
    seen: list[tuple[float, int]] = []
    over = threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def watch() -> None:
        while not over.wait(0.1):
            seen.append((time.perf_counter(), max((_resident(pid) for pid in _workers(process.pid)), default=0)))

    started = time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    over.set()
    watcher.join()
    seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    peaks = [0] * 5
    for at, resident in seen:
        fifth = min(4, int(5 * (at - started) / seconds))
        peaks[fifth] = max(peaks[fifth], resident)
    return seconds, peaks


def _workers(pid: int) -> list[int]:
    """The processes below one: the executor's, and the workers it forks."""
    try:
        below = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return below + [worker for child in below for worker in _workers(child)]


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
