"""`python -m benchmarks.build`: our build command beside three other ways from the same JSON lines to token files.

ours          python -m corpus.build, whole: planning, checks of the engine, manifest, checksums, report
bare loop     orjson -> gigatoken -> numpy packing -> MDSWriter, one process, nothing else
tokenizers    the same loop with Hugging Face tokenizers
datatrove     JsonlReader -> DocumentTokenizer on LocalPipelineExecutor

Rates are input bytes (UTF-8 text) over wall seconds of whole processes, interpreter start included.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.builds import SEQ_LEN, build_arguments, build_command, make_tokenizer, timed, write_jsonl, write_recipe
from benchmarks.common import code_documents, show


def main() -> None:
    """Entry point."""
    parser = build_arguments(__doc__)
    parser.add_argument("--megabytes", type=int, default=500, help="input of our build and the bare loop")
    parser.add_argument("--slow-megabytes", type=int, default=36, help="input of the two slow ways")
    parser.add_argument("--run", choices=["bare", "tokenizers", "datatrove"], help=argparse.SUPPRESS)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        {"bare": bare_loop, "tokenizers": bare_loop, "datatrove": datatrove_pipeline}[args.run](args)
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        compare(args, Path(folder))


def compare(args: argparse.Namespace, work: Path) -> None:
    """Run every way once, in turn, and print the table."""
    inputs = {}
    for name, megabytes in (("big", args.megabytes), ("small", args.slow_megabytes)):
        inputs[name] = work / f"{name}.jsonl"
        write_jsonl(inputs[name], code_documents(megabytes * 1_000_000))
    recipe = write_recipe(work / "bench.yaml", [inputs["big"]])
    tokenizer = make_tokenizer(recipe, work / "data")
    build = build_command(recipe, work / "data")
    rows = []
    seconds = {}
    for workers in sorted({1, args.workers}):
        shutil.rmtree(work / "data" / "streams", ignore_errors=True)
        name = f"ours, {workers} worker{'s' * (workers > 1)}"
        seconds[name] = (timed([*build, "--workers", str(workers)])[0], args.megabytes)
    for name, run, size, workers in (
        ("bare loop, 1 process", "bare", "big", 1),
        ("tokenizers + MDSWriter, 1 process", "tokenizers", "small", 1),
        (f"datatrove pipeline, {args.workers} workers", "datatrove", "small", args.workers),
    ):
        command = [
            sys.executable, "-m", "benchmarks.build", "--run", run, "--input", str(inputs[size]),
            "--tokenizer", str(tokenizer), "--work", str(work / run), "--workers", str(workers),
        ]  # fmt: skip
        seconds[name] = (timed(command)[0], args.megabytes if size == "big" else args.slow_megabytes)
    rates = {name: megabytes / wall for name, (wall, megabytes) in seconds.items()}
    bare, datatrove = (next(rate for name, rate in rates.items() if name.startswith(w)) for w in ("bare", "datatrove"))
    for name, (wall, megabytes) in seconds.items():
        rows.append((name, megabytes, wall, rates[name], rates[name] / bare, rates[name] / datatrove))
    show(
        "From JSON lines of code to packed tokens (Llama 3 tokenizer)",
        ("way", "MB", "seconds", "MB/s", "x bare loop", "x datatrove"),
        rows,
        args.out,
    )


def bare_loop(args: argparse.Namespace) -> None:
    """The shortest honest loop: parse, encode in batches, prepend BOS, cut, write shards."""
    import numpy as np
    import orjson
    from streaming import MDSWriter

    from corpus.tokenization.engine import FastEngine, ReferenceEngine

    text = args.tokenizer.read_text(encoding="utf-8")
    engine = FastEngine(text) if args.run == "bare" else ReferenceEngine(text)
    row = SEQ_LEN + 1
    tail = np.empty(0, np.uint32)
    with (
        args.input.open("rb") as file,
        MDSWriter(
            out=str(args.work), columns={"ids": f"ndarray:uint32:{row}"}, compression="zstd", hashes=["xxh64"]
        ) as writer,
    ):
        while lines := file.readlines(2 << 20):
            ids, lengths = engine.encode_batch([orjson.loads(line)["text"] for line in lines])
            starts = np.cumsum(lengths) - lengths
            joined = np.concatenate([tail, np.insert(ids, starts, 128000)])
            whole = len(joined) // row
            for sample in joined[: whole * row].reshape(whole, row):
                writer.write({"ids": sample})
            tail = joined[whole * row :]


def datatrove_pipeline(args: argparse.Namespace) -> None:
    """datatrove's own reader and tokeniser."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    parts = args.work / "parts"
    parts.mkdir(parents=True)
    lines = args.input.read_bytes().splitlines(keepends=True)
    for part in range(args.workers):  # it parallelises over files only
        (parts / f"{part}.jsonl").write_bytes(b"".join(lines[part :: args.workers]))
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(parts)),
            DocumentTokenizer(
                output_folder=str(args.work / "tokens"), tokenizer_name_or_path=str(args.tokenizer), eos_token=None
            ),
        ],
        tasks=args.workers,
        workers=args.workers,
        logging_dir=str(args.work / "logs"),
    ).run()


if __name__ == "__main__":
    main()
