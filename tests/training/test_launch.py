"""Launched in other ways than one launcher with a disk that has room."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.trainer_kit import ROOT, Ranks, build, metrics, trajectory
from tests.waiting import PATIENCE
from training.run import checkpoint


def places(folder: Path, name: str, out: Path | None = None, recipe_name: str = "mix") -> list[str]:
    recipe, runs = folder / "recipes" / f"{recipe_name}.yaml", out or folder / "runs"
    return [
        "--size", "tiny", "--recipe", str(recipe), "--data", str(folder / "data"), "--out", str(runs),
        "--run-name", name,
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_two_launchers_are_two_nodes_of_one_run(tmp_path: Path) -> None:
    """As on two machines with a shared disk; the same samples and, up to summing order, losses as one process."""
    build(tmp_path, "mix", 8, (60, 20))
    alone = Ranks(places(tmp_path, "alone"), 1, tmp_path / "alone")
    port = free_port()
    composer = str(Path(sys.executable).parent / "composer")
    launchers = []
    for node in (0, 1):
        command = [
            composer, "--world_size", "2", "-n", "1", "--node_rank", str(node), "--base_rank", str(node),
            "--master_addr", "127.0.0.1", "--master_port", str(port),
            "training/train.py", *places(tmp_path, "nodes"), "--save-interval", "3",
        ]  # fmt: skip
        with (tmp_path / f"node{node}").open("w") as log:
            launchers.append(
                subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
            )
    try:
        codes = [launcher.wait(PATIENCE) for launcher in launchers]
    finally:
        for launcher in launchers:
            if launcher.poll() is None:
                launcher.send_signal(signal.SIGTERM)
    assert alone.wait() == 0, alone.output()
    assert codes == [0, 0], [(tmp_path / f"node{node}").read_text() for node in (0, 1)]
    together, one = metrics(tmp_path / "runs" / "nodes"), metrics(tmp_path / "runs" / "alone")
    assert len(together) == 8 and [row["samples"] for row in together] == [row["samples"] for row in one]
    assert [row["loss"] for row in together] == pytest.approx([row["loss"] for row in one], abs=2e-3)
    newest = checkpoint.listing(tmp_path / "runs" / "nodes" / "checkpoints")[0]
    assert checkpoint.verify(newest).finished and checkpoint.verify(newest).world_size == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 24 MB: two checkpoints of 10 MB with what is around them, and not a third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    build(tmp_path, "mix", 8, (60, 20))
    whole = Ranks(places(tmp_path, "whole"), 1, tmp_path / "whole")
    assert whole.wait() == 0, whole.output()

    full = [*places(tmp_path, "full", small_disk), "--save-interval", "2", "--keep", "5"]
    ranks = Ranks(full, 1, tmp_path / "full")
    assert ranks.wait() == 2, ranks.output()
    assert "the checkpoint cannot be written" in ranks.output() and "Free some space" in ranks.output()
    assert "Traceback" not in ranks.output() and ranks.output().count("error:") == 1
    saved = small_disk / "full" / "checkpoints"
    assert [path.name[-1] for path in saved.iterdir()] and not list(saved.glob(".writing*"))
    last = checkpoint.verify(checkpoint.listing(saved)[0])
    assert last.step == 4

    # Not a byte left, not even for a line of metrics: still one line, and the checkpoints stay.
    build(tmp_path, "long", 900, (60, 20))
    ranks = Ranks(places(tmp_path, "long", small_disk, "long"), 1, tmp_path / "long")
    ranks.wait_for(lambda: len(metrics(small_disk / "long")) >= 2)
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    for _ in range(2):  # while it runs, and when it starts
        assert ranks.wait() == 2, ranks.output()
        # TensorBoard's own thread may print its trouble before; the last line is ours.
        assert ranks.output().splitlines()[-1].startswith("error: ") and "No space left" in ranks.output()
        assert checkpoint.verify(checkpoint.listing(saved)[0]) == last
        ranks = Ranks(full, 1, tmp_path / "fuller")
    assert ranks.wait() == 2

    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=90m", small_disk], check=True)
    ranks = Ranks(full, 1, tmp_path / "room")
    assert ranks.wait() == 0 and "resumed at step 4, next batch identical: yes" in ranks.output(), ranks.output()
    assert trajectory(small_disk / "full") == trajectory(tmp_path / "runs" / "whole")
