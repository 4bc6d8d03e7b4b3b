"""The build on clusters: a real Ray of two nodes, a real Slurm of one, each started here; same bytes, lost workers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, documents, environment, recipe_dict, run_command, user_error, write_jsonl
from tests.corpus.test_build import build, tree_hashes

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(a recipe of four units, the hashes of the streams that a local build makes of it)."""
    folder = tmp_path_factory.mktemp("small")
    write_jsonl(folder / "a.jsonl", documents(300, seed=1))
    write_jsonl(folder / "b.jsonl", documents(60, seed=2))
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(recipe_dict({"a": ["a.jsonl"], "b": ["b.jsonl"]}, unit_bytes=20_000)))
    build(recipe, folder / "data")
    return recipe, tree_hashes(folder / "data")


def options_file(folder: Path, **options: object) -> Path:
    """An --executor-options file."""
    path = folder / "executor.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


def start_build(recipe: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start the build command and go on."""
    command = [sys.executable, "-m", "corpus.build", str(recipe), "--out", str(out), *options]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def kill_worker(out: Path, process: subprocess.Popen[str], which: Callable[[int], int]) -> int:
    """Wait until a worker is in mid-unit, kill the process ``which`` makes of its id, and return the worker's id."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        for mark in out.glob(".build/*/run-*/running-*"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                worker = int(json.loads(mark.read_bytes())["pid"])
                os.kill(which(worker), signal.SIGKILL)
                return worker
        time.sleep(0.01)
    raise AssertionError(f"no worker was seen: {process.communicate(timeout=60)[1]}")


def parent_of(pid: int) -> int:
    """The process that started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_options_are_checked_before_any_work(small: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    recipe, _ = small
    programs = tmp_path / "bin"  # a Slurm is here as far as the first look goes
    programs.mkdir()
    (programs / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (programs / "sbatch").chmod(0o755)

    def error_of(kind: str, path: str = f"{programs}:/usr/bin:/bin", **options: object) -> str:
        file = options_file(tmp_path, **options)
        command = ["-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--executor", kind]
        return user_error(run_command(*command, "--executor-options", str(file), PATH=path))

    assert "Did you mean 'partition'" in error_of("slurm", partitoin="long", time="1:00:00")
    assert "'partition'" in error_of("slurm", time="1:00:00") and "required" in error_of("slurm", time="1:00:00")
    assert "in quotes" in error_of("slurm", partition="long", time=7200)
    assert "sbatch is not found" in error_of("slurm", path=str(tmp_path), partition="long", time="1:00:00")
    assert "needs --executor slurm or ray" in error_of("local")
    if importlib.util.find_spec("ray"):
        assert "Did you mean 'address'" in error_of("ray", adress="auto")
    else:
        assert "ray is not installed" in error_of("ray")
    assert not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A running Ray cluster of two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING"] = "0"
    node = {"num_cpus": 1, "memory": 1 << 30, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**{key: value for key, value in node.items() if key != "include_dashboard"})
        yield cluster.address
    finally:
        cluster.shutdown()


@needs_ray
def test_ray_gives_the_same_bytes_though_workers_are_killed(
    small: tuple[Path, dict[str, str]], ray_address: str, tmp_path: Path
) -> None:
    recipe, wanted = small
    file = options_file(tmp_path, address=ray_address, mem_per_cpu_gb=0.5, lost_after=10)
    out = tmp_path / "data"
    process = start_build(recipe, out, "--executor", "ray", "--executor-options", str(file))
    # The whole Ray worker: Ray notices. Then only the process it forked for the unit: only its silence tells.
    kill_worker(out, process, parent_of)
    kill_worker(out, process, lambda pid: pid)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "on ray" in errors
    assert tree_hashes(out) == wanted


@needs_ray
def test_ray_reports_what_cannot_work_in_one_line(
    small: tuple[Path, dict[str, str]], ray_address: str, tmp_path: Path
) -> None:
    recipe, _ = small
    command = ["-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--executor", "ray"]
    file = options_file(tmp_path, address=ray_address, cpus_per_task=64)
    assert "no node of the cluster has 64 CPUs" in user_error(run_command(*command, "--executor-options", str(file)))
    raw = yaml.safe_load(recipe.read_text())
    raw |= {"malformed": "fail", "unit_bytes": 1 << 20}
    for name in ("a.jsonl", "b.jsonl"):
        shutil.copy(recipe.parent / name, tmp_path / name)
    with (tmp_path / "b.jsonl").open("a") as broken:
        broken.write('{"text": broken\n')
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(raw))
    command[2] = str(tmp_path / "small.yaml")
    file = options_file(tmp_path, address=ray_address, mem_per_cpu_gb=0.5)
    line = user_error(run_command(*command, "--executor-options", str(file)))
    assert "b.jsonl:" in line and "invalid_json" in line
    assert not list((tmp_path / "data" / "streams").glob("b-*/stream.json"))
