"""`python -m benchmarks.train_step --size 950m --compile --kd`: tokens per second, MFU and data wait of training.

"model" ways step MobileLM and AdamW on random batches, without loader or Composer. "trainer" ways are the command that
users type, `training/train.py`, on a build of random ids: our loader, Composer, every callback; its figures are those
it writes itself, after the first steps. One pass per optimiser step everywhere, as in the published runs, so that what
a trainer way loses against its model way is what the trainer costs. Each way is a process of its own.

On a CPU, where calls return when they are done, "own" is the trainer's own time per step, the median: what is left
without the loader, forward, backward, clipping and the optimiser, all timed in the same steps. It is processor time of
the main thread, which other work on the machine lengthens least.

On a GPU this measures the size itself in bf16; on a CPU a scaled-down model on one thread (OMP_NUM_THREADS says
another number), for relative figures and to keep the script from rotting.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

from benchmarks.common import arguments, show

PASS_TOKENS = 32_768
"""Tokens of a pass on a GPU: 16 sequences of 2048, as published for R1."""
WARM_UP = 3
"""Steps before the clock starts: compilation, the allocator, the loader's start."""


@dataclass(frozen=True)
class Way:
    """One line of the table; everything its process needs."""

    name: str
    size: str
    seq_len: int
    batch: int
    steps: int
    kind: Literal["model", "trainer"]
    chunked: bool = True
    compiled: Literal["", "blocks", "whole"] = ""
    distill: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Figures:
    """What a way's process found."""

    tokens_per_s: float
    data_wait: float | None
    """Share of the time spent waiting for the loader; None without one."""
    first_step_s: float
    """The first step, which compiles and starts the loader."""
    gb: float
    """Peak memory: of the device on a GPU, of the process on a CPU."""
    loss: float
    """Of the last step."""
    own_ms: float | None = None
    """Milliseconds of a step that are the trainer's own; only of a trainer on a CPU."""


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--size", nargs="+", default=["950m"], help="one or several sizes")
    parser.add_argument("--seq-len", type=int, help="default: the size's own on a GPU, 128 on a CPU")
    parser.add_argument("--batch", type=int, help="sequences per pass (default: 32,768 tokens on a GPU, 4 on a CPU)")
    parser.add_argument("--steps", type=int, default=20, help=f"measured steps, after {WARM_UP} others")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--kd", action="store_true", help="also measure distillation from a teacher's cached top k")
    parser.add_argument("--trainer-only", action="store_true", help="leave out the ways without loader and Composer")
    parser.add_argument("--workers", type=int, default=2, help="data workers of the trainer (default: 2)")
    parser.add_argument("--run", metavar="WAY", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        way = Way(**json.loads(args.run))
        print(json.dumps(asdict((model_alone if way.kind == "model" else trainer)(way))))
        return

    import torch

    from training.model.shapes import flops_per_token, get_size, scaled_down
    from training.run.peak import peak_of

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        # More threads than free cores wait for one another: on a busy machine that costs a factor of ten.
        torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    peak = peak_of(torch.device("cuda" if on_gpu else "cpu"))
    rows: list[tuple[Any, ...]] = []
    for size in args.size:
        cfg = get_size(size) if on_gpu else scaled_down(get_size(size))
        seq_len = args.seq_len or (cfg.seq_len if on_gpu else 128)
        if seq_len > cfg.max_positions:
            parser.error(f"{size} has {cfg.max_positions} positions, fewer than --seq-len {seq_len}")
        batch = args.batch or (max(1, PASS_TOKENS // seq_len) if on_gpu else 4)
        first = None
        for way in _ways(args, size, seq_len, batch):
            figures = _measure(way)
            name = f"{cfg.name} {seq_len}: {way.name}"
            if figures is None:
                rows.append((name, "out of memory", *[""] * 7))
                continue
            rate = figures.tokens_per_s
            first = first or rate
            mfu = 100 * rate * flops_per_token(cfg, seq_len) / peak.flops
            wait = "" if figures.data_wait is None else 100 * figures.data_wait
            own = "" if figures.own_ms is None else figures.own_ms
            rows.append((name, rate, mfu, wait, own, figures.first_step_s, figures.gb, figures.loss, rate / first))
    show(
        f"Training steps{'' if on_gpu else ', scaled-down models'} (peak: {peak.note})",
        (
            "size, sequence: way",
            "tokens/s",
            "MFU %",
            "data wait %",
            "own, ms",
            "first step, s",
            "GB",
            "last loss",
            "x first",
        ),
        rows,
        args.out,
    )


def _ways(args: argparse.Namespace, size: str, seq_len: int, batch: int) -> list[Way]:
    base = {"size": size, "seq_len": seq_len, "batch": batch, "steps": args.steps}
    ways = []
    if not args.trainer_only:
        ways = [
            Way("model, plain loss", **base, kind="model", chunked=False),
            Way("model, chunked loss", **base, kind="model"),
        ]
        if args.compile:
            ways += [Way(f"model, compiled {how}", **base, kind="model", compiled=how) for how in ("blocks", "whole")]
    run = {**base, "kind": "trainer", "workers": args.workers}
    ways.append(Way("trainer", **run))
    if args.compile:
        ways.append(Way("trainer --compile", **run, compiled="whole"))
    if args.kd:
        ways.append(Way("trainer, cached teacher", **run, distill=True))
    return ways


def _measure(way: Way) -> Figures | None:
    """The way's figures from a process of its own; None when the device's memory does not hold it."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--run", json.dumps(asdict(way))]
    with tempfile.TemporaryDirectory(prefix="inductor-") as cache:
        # Compiled anew each time: the first step's time means something, and no code is made for other threads.
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        return Figures(**json.loads(done.stdout.splitlines()[-1]))
    if "OutOfMemoryError" in done.stderr:
        return None
    raise RuntimeError(f"{way.name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def model_alone(way: Way) -> Figures:
    """Steps of the model and its optimiser; the same weights and batches whatever the way."""
    import torch

    from training.model.decoder import MobileLM
    from training.model.memory import CHUNK
    from training.model.shapes import get_size, scaled_down
    from training.run.optimizer import decay_groups

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    torch.manual_seed(0)
    model = MobileLM(get_size(way.size) if on_gpu else scaled_down(get_size(way.size))).to(device)
    if way.compiled == "blocks":
        for block in model.layers:
            block.compile()
    elif way.compiled:
        model.compile()
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=1e-4, fused=on_gpu)
    generator = torch.Generator().manual_seed(1)
    losses, marks = [], [time.perf_counter()]
    for _ in range(WARM_UP + way.steps):
        rows = torch.randint(0, model.cfg.vocab_size, (way.batch, way.seq_len + 1), generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = model.loss(rows[:, :-1], rows[:, 1:], chunk=CHUNK if way.chunked else None)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if len(losses) in (1, WARM_UP, WARM_UP + way.steps):
            losses[-1].item()  # waits for the device
            if on_gpu:
                torch.cuda.synchronize()
            marks.append(time.perf_counter())
    rate = way.steps * way.batch * way.seq_len / (marks[3] - marks[2])
    return Figures(rate, None, marks[1] - marks[0], _peak_memory(), float(losses[-1]))


def trainer(way: Way) -> Figures:
    """Steps of the trainer's command, from its own metrics."""
    import torch

    from benchmarks.synthetic import write_build
    from training.model.shapes import get_size, scaled_down
    from training.run.folder import read_metrics
    from training.train import main as train

    on_gpu = torch.cuda.is_available()
    cfg = get_size(way.size) if on_gpu else scaled_down(get_size(way.size))
    steps = WARM_UP + way.steps
    with tempfile.TemporaryDirectory(prefix="train-step-") as name:
        folder = Path(name)
        recipe = write_build(
            folder, vocab_size=cfg.vocab_size, seq_len=way.seq_len, global_batch=way.batch, steps=steps,
            distill=way.distill,
        )  # fmt: skip
        given = {
            "--size": way.size, "--recipe": recipe, "--data": folder / "data",
            "--cache": folder / "cache", "--out": folder, "--run-name": "run",
            "--workers": way.workers, "--device-batch": way.batch,
        }  # fmt: skip
        arguments = [str(part) for pair in given.items() for part in pair]
        flags = ["--compile"] * bool(way.compiled) + ["--scaled-down"] * (not on_gpu)
        # What the trainer prints is not ours to print: the last line of this process is its figures.
        with contextlib.redirect_stdout(sys.stderr), _own_time() as marks:
            train(arguments + flags)
        rows = read_metrics(folder / "run")
    assert len(rows) == steps
    seconds = sum(row["seconds"] for row in rows[WARM_UP:])
    waited = sum(row["seconds"] * row["data_wait"] for row in rows[WARM_UP:])
    rate = way.steps * way.batch * way.seq_len / seconds
    own = None if on_gpu else 1e3 * median(after - before for before, after in pairwise(marks[-way.steps :]))
    return Figures(rate, waited / seconds, rows[0]["seconds"], _peak_memory(), rows[-1]["loss"], own)


@contextlib.contextmanager
def _own_time() -> Iterator[list[float]]:
    """Processor seconds that were the trainer's own so far, after each step of the optimiser."""
    import torch
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    from training.run.composer_model import TrainingModel

    others, marks = 0.0, []

    def timed(owner: Any, name: str) -> contextlib.AbstractContextManager[Any]:
        call = getattr(owner, name)

        @functools.wraps(call)
        def around(*given: Any, **more: Any) -> Any:
            nonlocal others
            start = time.thread_time()
            try:
                return call(*given, **more)
            finally:
                others += time.thread_time() - start

        return patch.object(owner, name, around)

    step = torch.optim.AdamW.step

    @functools.wraps(step)
    def timed_step(self: Any, closure: Callable[[], Any] | None = None) -> Any:
        # Composer has the whole step, forward to clipping, in the closure.
        nonlocal others
        loss = closure() if closure else None
        start = time.thread_time()
        step(self)
        others += time.thread_time() - start
        marks.append(time.thread_time() - others)
        return loss

    with (
        timed(_BaseDataLoaderIter, "__next__"),
        timed(TrainingModel, "forward"),
        timed(torch.Tensor, "backward"),
        timed(torch.nn.utils, "clip_grad_norm_"),
        patch.object(torch.optim.AdamW, "step", timed_step),
    ):
        yield marks


def _peak_memory() -> float:
    """In GB: of the device on a GPU, else of the process."""
    import torch

    from training.base.memory import peak_memory

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return peak_memory() / 1e9


if __name__ == "__main__":
    main()
