"""The build on clusters: a real Ray of two nodes, a real Slurm of one, each started here; same bytes, lost workers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from corpus.pipeline.heartbeat import ParentBeat
from tests.conftest import ROOT, documents, environment, recipe_dict, run_command, user_error, write_jsonl
from tests.corpus.test_build import build, tree_hashes
from tests.waiting import PATIENCE, wait_until

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(a recipe of three units and two passes, the hashes of the streams that a local build makes of it)."""
    folder = tmp_path_factory.mktemp("small")
    write_jsonl(folder / "a.jsonl", documents(300, seed=1))
    write_jsonl(folder / "b.jsonl", documents(60, seed=2))
    recipe = folder / "small.yaml"
    cleaning = [{"step": "exact_dedup"}]
    data = recipe_dict({"a": ["a.jsonl"], "b": ["b.jsonl"]}, unit_bytes=30_000, cleaning=cleaning)
    recipe.write_text(yaml.safe_dump(data))
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
    """Wait until a worker writes a unit, kill the process ``which`` makes of its id, and return the worker's id."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        for mark in out.glob(".build/*/run-*/running-*"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                worker = int(json.loads(mark.read_bytes())["pid"])
                if list(out.glob(f"streams/*/work/*/*-{worker}")):
                    os.kill(which(worker), signal.SIGKILL)
                    return worker
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"no worker was seen: {process.communicate()[1]}")


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


def test_a_worker_lives_as_long_as_its_build_gives_signs_of_life(tmp_path: Path) -> None:
    build_side = ParentBeat(tmp_path, lost_after=3)
    code = (
        "import time, pathlib; from corpus.pipeline.marks import UnitMarks\n"
        f"with UnitMarks(pathlib.Path({str(tmp_path)!r}), 0): time.sleep({PATIENCE})"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment())
    mark = tmp_path / "running-0"
    seen: set[int] = set()

    def followed() -> bool:
        build_side.beat()
        with contextlib.suppress(FileNotFoundError):
            seen.add(json.loads(mark.read_bytes())["beat"])
        return len(seen) >= 9  # six beats are the silence that would end it

    assert wait_until(followed, lambda: worker.poll() is None, pause=0.05)
    assert worker.wait(PATIENCE) == 3


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
    _, errors = process.communicate(timeout=PATIENCE)
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


SLURM = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MinJobAge=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=3000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[str]:
    """Path of the slurm.conf of a running Slurm of one node: munge, controller and node on loopback, in /tmp."""
    absent = [name for name in SLURM if shutil.which(name) is None and not Path("/usr/sbin", name).is_file()]
    if absent or os.getuid() != 0:
        pytest.skip(f"no {absent[0]}: install slurm-wlm and munge" if absent else "starting Slurm needs root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    conf.write_text(
        SLURM_CONF.format(host=platform.node(), folder=folder, ports=free_ports(2), cores=os.cpu_count() or 1)
    )
    places = {"pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed", "socket": "munge.socket"}
    flags = [f"--{flag}={folder / name}" for flag, name in places.items()]
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        with (folder / f"{command[0]}.out").open("ab") as log:
            program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
            started.append(subprocess.Popen([program, *command[1:]], stdout=log, stderr=log, env=environment()))
        return started[-1]

    def is_idle(daemon: subprocess.Popen[bytes]) -> bool:
        command = ["sinfo", "--noheader", "--format=%T"]
        env = environment(SLURM_CONF=str(conf))
        return wait_until(
            lambda: subprocess.run(command, env=env, capture_output=True).stdout.strip() == b"idle",
            lambda: daemon.poll() is None,
            pause=0.5,
            patience=120,
        )

    try:
        start("munged", "--foreground", "--force", f"--key-file={key}", *flags)
        start("slurmctld", "-D", "-f", str(conf))
        for plugin in ("disabled", "cgroup/v1"):  # Slurm before 23.02 knows no "disabled", and uses neither here
            (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
            if is_idle(start("slurmd", "-D", "-f", str(conf), "-N", platform.node())):
                break
        else:
            said = (folder / "slurmd.out").read_text().strip().splitlines()
            pytest.skip(f"slurmd does not run here: {said[-1] if said else 'it says nothing'}")
        yield str(conf)
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_slurm_gives_the_same_bytes_though_a_worker_is_killed(
    small: tuple[Path, dict[str, str]], slurm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, wanted = small
    monkeypatch.setenv("SLURM_CONF", slurm)
    file = options_file(tmp_path, partition="main", time="0:10:00", mem_per_cpu_gb=1, workers=2)
    out = tmp_path / "data"
    process = start_build(recipe, out, "--executor", "slurm", "--executor-options", str(file))
    kill_worker(out, process, lambda pid: pid)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "2 workers on slurm" in errors
    assert tree_hashes(out) == wanted


def test_a_build_that_is_stopped_takes_its_slurm_jobs_along(
    small: tuple[Path, dict[str, str]], slurm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, _ = small
    monkeypatch.setenv("SLURM_CONF", slurm)
    file = options_file(tmp_path, partition="nowhere", time="0:10:00", mem_per_cpu_gb=1)
    command = ["--executor", "slurm", "--executor-options", str(file)]
    refused = run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), *command)
    assert "sbatch refuses the job" in user_error(refused) and "partition" in refused.stderr

    def queue() -> str:
        return subprocess.run(["squeue", "--noheader"], env=environment(), capture_output=True, text=True).stdout

    options_file(tmp_path, partition="main", time="0:10:00", mem_per_cpu_gb=1)
    process = start_build(recipe, tmp_path / "data", *command)
    assert wait_until(queue, lambda: process.poll() is None, pause=0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "run the same command again" in errors
    assert wait_until(lambda: not queue(), pause=0.5)
