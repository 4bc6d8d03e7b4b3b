"""Helpers for the loader's tests: real streams on disk, and real processes that read them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from corpus.base.errors import UserError
from tests.waiting import PATIENCE

SEQ_LEN = 15
BOS = 7
PRELOAD = ["torch", "streaming", "composer", "training.data.loader"]


def write_stream(folder: Path, source: int, samples: int, dtype: str = "uint16", shard_bytes: int = 1 << 10) -> Path:
    """A packed stream in shards of about 20 samples; ids[0] tells the source, ids[1] the sample, 7 is a BOS."""
    from streaming import MDSWriter

    with MDSWriter(
        out=str(folder),
        columns={"ids": f"ndarray:{dtype}:{SEQ_LEN + 1}"},
        compression="zstd",
        hashes=["xxh64"],
        size_limit=shard_bytes,
    ) as out:
        for sample in range(samples):
            ids = 100 + (np.arange(SEQ_LEN + 1) * (sample + 3) * (source + 1)) % 1000
            ids[0], ids[1], ids[2 + sample % 10] = source, sample, BOS
            out.write({"ids": ids.astype(dtype)})
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def rank_environment(rank: int, world: int, nodes: int, port: int) -> dict[str, str]:
    """What a launcher gives rank `rank` of `world` on `nodes` nodes."""
    per_node = world // nodes
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank % per_node),
        "LOCAL_WORLD_SIZE": str(per_node),
        "NODE_RANK": str(rank // per_node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def start_rank(job: Callable[..., Any], environment: dict[str, str], arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Start `job(pipe, environment, **arguments)` in a fresh process; (process, our end of the pipe)."""
    # The server imports torch and streaming once for all tests; it finds our modules through the environment only.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=job, args=(theirs, environment), kwargs=arguments)
    process.start()
    theirs.close()
    return process, ours


def run_ranks(job: Callable[..., Any], world: int = 1, nodes: int = 1, **arguments: Any) -> list[Any]:
    """Run `job(**arguments)` on every rank of a gloo group, in fresh processes; each rank's result, in rank order."""
    port = free_port()
    started = [
        start_rank(_rank, rank_environment(rank, world, nodes, port), {"job": job, "arguments": arguments})
        for rank in range(world)
    ]
    results, failures = [], []
    for process, pipe in started:
        try:
            good, value = pipe.recv()
        except EOFError:
            good, value = False, f"a rank died with exit code {process.exitcode}"
        (results if good else failures).append(value)
    for process, _ in started:
        process.join(PATIENCE)
        process.kill()
    for failure in failures:
        raise failure if isinstance(failure, UserError) else RuntimeError("\n".join(map(str, failures)))
    return results


def _rank(pipe: Any, environment: dict[str, str], job: Callable[..., Any], arguments: dict[str, Any]) -> None:
    import torch
    from torch import distributed as dist

    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        if int(environment["WORLD_SIZE"]) > 1:
            dist.init_process_group("gloo")
        pipe.send((True, job(**arguments)))
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
    except UserError as error:
        pipe.send((False, error))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    # Children of a server leave without these; a real run does not, and it removes its shared memory in them.
    atexit._run_exitfuncs()
