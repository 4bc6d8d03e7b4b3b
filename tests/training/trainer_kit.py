"""Small builds and real training processes for the trainer's tests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from streaming import MDSWriter

from corpus.recipe.model import Recipe, load_recipe
from corpus.records.manifest import Manifest, ManifestSource
from corpus.records.stream import Documents, Tokenizer
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
VOCAB, SEQ_LEN, BATCH = 512, 32, 8
STEP_TOKENS = BATCH * SEQ_LEN


def write_stream(folder: Path, samples: int, seed: int, seq_len: int = SEQ_LEN, marked: Collection[int] = ()) -> None:
    """An MDS stream whose rows are arithmetic sequences of a random start and step: there is something to learn.

    Rows in `marked` begin with id 1, which no other row holds.
    """
    random = np.random.default_rng(seed)
    starts, strides = random.integers(2, VOCAB, samples), random.integers(1, 4, samples)
    rows = 2 + (starts[:, None] + strides[:, None] * np.arange(seq_len + 1)) % (VOCAB - 2)
    rows[list(marked), 0] = 1
    columns = {"ids": f"ndarray:uint16:{seq_len + 1}"}
    with MDSWriter(out=str(folder), columns=columns, compression="zstd", hashes=["xxh64"], size_limit=1200) as writer:
        for row in rows:
            writer.write({"ids": row.astype(np.uint16)})
    (folder / "stream.json").write_text("{}")


def recipe_dict(name: str, steps: int, **training: Any) -> dict[str, Any]:
    """A recipe of two sources, one short and one read more than once."""
    return {
        "name": name, "family": "test", "phase": name, "summary": "For tests.",
        "tokenizer": {"kind": "train", "vocab_size": VOCAB}, "seq_len": SEQ_LEN, "boundary": "bos",
        "tokens": steps * STEP_TOKENS,
        "mixture": {"a": {"source": "a", "weight": 0.7}, "b": {"source": "b", "weight": 0.3}},
        "training": {
            "global_batch": BATCH, "canonical_nodes": 1, "virtual_epoch_samples": 6 * BATCH,
            "optimizer": {"lr": 3e-3}, "schedule": {"kind": "cosine", "warmup_steps": 3, "final_fraction": 0.1},
            **training,
        },
    }  # fmt: skip


def build(
    folder: Path, name: str = "mix", steps: int = 24, samples: tuple[int, int] = (150, 40),
    recipe: dict[str, Any] | None = None, **training: Any,
) -> Path:  # fmt: skip
    """Write a recipe (given whole, or recipe_dict's), streams and manifest below `folder`; returns its path."""
    path = folder / "recipes" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe or recipe_dict(name, steps, **training)))
    loaded = load_recipe(path)
    for seed, (source, count) in enumerate(zip("ab", samples, strict=True)):
        stream = folder / "data" / "streams" / f"{source}-{count}"
        if not stream.exists():
            write_stream(stream, count, seed)
    manifest_of(loaded, samples).write(folder / "data" / name)
    return path


def manifest_of(recipe: Recipe, samples: tuple[int, int]) -> Manifest:
    """The manifest of a recipe_dict's build."""
    shares = recipe.shares()
    sources = {
        name: ManifestSource(
            source=name, stream=f"../streams/{name}-{count}",
            stream_fingerprint=hashlib.sha256(f"{name}-{count}".encode()).hexdigest(), revision="1",
            licence="CC0-1.0", redistributable=True, documents=Documents(read=count, kept=count),
            tokens=count * (recipe.seq_len + 1), samples=count, text_bytes=count,
            weight_asked=recipe.mixture[name].weight,
            weight=shares[name], samples_drawn=round(recipe.samples * shares[name]),
            tokens_drawn=round(recipe.samples * shares[name]) * recipe.seq_len,
            epochs=recipe.samples * shares[name] / count,
        )
        for name, count in zip("ab", samples, strict=True)
    }  # fmt: skip
    return Manifest(
        recipe=recipe.name, family=recipe.family, phase=recipe.phase, recipe_sha256="0" * 64, seq_len=recipe.seq_len,
        boundary=recipe.boundary, document_mask=recipe.document_mask,
        tokenizer=Tokenizer(name="t", sha256="0" * 64, vocab_size=VOCAB, bos_id=0, eos_id=1, path="tokenizers/t"),
        tokens=recipe.tokens, steps=recipe.steps, global_batch=recipe.training.global_batch, seed=recipe.seed,
        weight_sum=recipe.weight_sum(), sources=sources,
    )  # fmt: skip


class Ranks:
    """The processes of one training command, forked from a server that has imported torch and Composer once.

    A fresh interpreter needs many seconds for those imports. The processes are as real as the launcher's: own memory,
    own process group over gloo, killable.
    """

    def __init__(
        self,
        arguments: list[str],
        processes: int,
        log: Path,
        cwd: Path = ROOT,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """`prepare` runs in each process before the command does."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["training.run.trainer", "torch.utils.tensorboard", "composer.algorithms", "matplotlib.pyplot"]
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.log = log
        if "--cache" not in arguments:
            arguments = [*arguments, "--cache", str(log.parent / "cache")]
        self.processes = [
            context.Process(target=_rank, args=(arguments, rank, processes, port, str(log), str(cwd), prepare))
            for rank in range(processes)
        ]
        for process in self.processes:
            process.start()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Exit code: the first that is not 0, upon which the others get SIGTERM, as from the launcher."""
        deadline = time.monotonic() + seconds
        first = 0
        while any(process.is_alive() for process in self.processes):
            failed = next((process.exitcode for process in self.processes if process.exitcode), 0)
            if failed and not first:
                first = failed
                self.kill(signal.SIGTERM)
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"still running after {seconds} s: {self.output()}")
            time.sleep(0.01)
        return first or next((process.exitcode for process in self.processes if process.exitcode), 0)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to every process at once."""
        for process in self.processes:
            # The fork server reaps a process before it passes on that it ended: between the two it still looks alive.
            if process.is_alive() and process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def wait_for(self, condition: Any, seconds: float = PATIENCE) -> None:
        """Until `condition()` holds; fails when the processes end before."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"nothing happened: {self.output()}"
            assert any(process.is_alive() for process in self.processes), self.output()
            time.sleep(0.005)

    def output(self, rank: int = 0) -> str:
        """What a rank printed, both streams."""
        path = Path(f"{self.log}.{rank}")
        return path.read_text() if path.exists() else ""


def saves_hold_the_step() -> None:
    """A `prepare` after which each checkpoint is on disk before the next step begins: a kill's place is then known."""
    from training.run.callbacks.background import Background

    plain = Background.start

    def start(self: Background, work: Callable[[], None]) -> None:
        plain(self, work)
        self.wait()

    Background.start = start  # type: ignore[method-assign]


def _rank(
    arguments: list[str], rank: int, world: int, port: int, log: str, cwd: str, prepare: Callable[[], None] | None
) -> None:
    os.chdir(cwd)
    stream = os.open(f"{log}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "NODE_RANK": 0}
    os.environ.update({key: str(value) for key, value in facts.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    # The launcher's processes fork their data workers; a child of a fork server would start another server for them.
    multiprocessing.set_start_method("fork", force=True)
    # Nor do they share one tracker of shared memory.
    tracker: Any = resource_tracker._resource_tracker
    tracker._fd = tracker._pid = None
    if prepare:
        prepare()
    sys.argv = ["train.py", *arguments]
    from training.train import main

    main(arguments)


def metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that are whole."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def trajectory(run: Path) -> list[dict[str, Any]]:
    """What must be equal between two runs of the same command: everything of every step but its timings."""
    timings = {"tokens_per_s", "mfu", "data_wait", "seconds"}
    return [{key: value for key, value in row.items() if key not in timings} for row in metrics(run)]
