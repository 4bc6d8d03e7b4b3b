"""Saves beside the training loop, reads by one process, and signals that ask for a last save."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus.base.errors import UserError
from tests.training.trainer_kit import Ranks, build, metrics, trajectory
from training.run import checkpoint
from training.run.callbacks.background import Background
from training.run.callbacks.checkpointing import on_host


def start(folder: Path, name: str, *more: str, processes: int = 1, prepare: Any = None) -> Ranks:
    arguments = [
        "--size", "tiny", "--recipe", str(folder / "recipes" / "mix.yaml"), "--data", str(folder / "data"), "--out",
        str(folder / "runs"), "--run-name", name, *more,
    ]  # fmt: skip
    return Ranks(arguments, processes, folder / f"log-{name}-{time.monotonic_ns()}", prepare=prepare)


def finish(folder: Path, name: str, *more: str, processes: int = 1, prepare: Any = None) -> str:
    ranks = start(folder, name, *more, processes=processes, prepare=prepare)
    assert ranks.wait() == 0, ranks.output()
    return ranks.output()


def saved(folder: Path, name: str) -> list[int]:
    return [checkpoint.read_record(path).step for path in checkpoint.listing(folder / "runs" / name / "checkpoints")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saving")
    build(folder, steps=10, samples=(60, 20))
    finish(folder, "whole", "--save-interval", "4", "--keep", "1", "--keep-every", "3")
    return folder


def count_reads(log: Path) -> None:
    """Have this process write down which files of a checkpoint it reads."""
    for name in ("_hash", "read_weights", "read_state"):
        plain = getattr(checkpoint, name)

        def read(path: Path, *rest: Any, plain: Any = plain, name: str = name, **named: Any) -> Any:
            with log.open("a") as stream:
                stream.write(f"{os.environ['RANK']} {name}\n")
            return plain(path, *rest, **named)

        setattr(checkpoint, name, read)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_one_process_reads_a_checkpoint_for_all(built: Path, parallel: str) -> None:
    """Weights and optimiser; the trajectory says that the others got the very same."""
    finish(built, parallel, "--until", "4", "--parallel", parallel, processes=2)
    log = built / f"reads-{parallel}"
    output = finish(built, parallel, "--parallel", parallel, processes=2, prepare=partial(count_reads, log))
    assert "resumed at step 4, next batch identical: yes" in output
    assert Counter(log.read_text().split("\n")[:-1]) == {"0 _hash": 2, "0 read_weights": 1, "0 read_state": 1}
    straight = f"{parallel}-straight"
    finish(built, straight, "--parallel", parallel, processes=2)
    assert trajectory(built / "runs" / parallel) == trajectory(built / "runs" / straight)


def test_steps_asked_for_are_saved_and_kept(built: Path) -> None:
    assert saved(built, "whole") == [10, 9, 6, 3]


def test_saves_by_time(built: Path) -> None:
    finish(built, "timed", "--save-minutes", "1e-9", "--keep", "3")
    assert saved(built, "timed") == [10, 9, 8]


def slow_disk(gate: Path) -> None:
    """Have each checkpoint wait, once written, until `gate` exists."""
    plain = checkpoint.publish_dir

    def publish(beside: Path, final: Path) -> bool:
        while not gate.exists():
            time.sleep(0.01)
        return plain(beside, final)

    checkpoint.publish_dir = publish


def test_training_goes_on_while_a_checkpoint_is_written_and_a_kill_leaves_the_one_before(built: Path) -> None:
    run, gate = built / "runs" / "slow", built / "gate"
    finish(built, "slow", "--until", "2", processes=2)
    ranks = start(built, "slow", "--save-interval", "4", processes=2, prepare=partial(slow_disk, gate))
    # Step 8 is trained, and its save waits for the one before.
    ranks.wait_for(lambda: len(metrics(run)) == 8)
    time.sleep(0.3)
    assert len(metrics(run)) == 8 and saved(built, "slow") == [2]
    assert len(list((run / "checkpoints").glob(".writing.*"))) == 1
    ranks.kill()
    assert ranks.wait() == -signal.SIGKILL

    # Two signals while it saves: it stops all the same, with all of it on disk.
    ranks = start(built, "slow", "--save-interval", "4", processes=2, prepare=partial(slow_disk, gate))
    ranks.wait_for(lambda: len(metrics(run)) == 5 and list((run / "checkpoints").glob(".writing.*")))
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
        ranks.kill(number)
        time.sleep(0.1)
    gate.touch()
    assert ranks.wait() == 0, ranks.output()
    assert saved(built, "slow")[0] == len(metrics(run)) < 10
    assert "next batch identical: yes" in finish(built, "slow", processes=2)
    finish(built, "slow-straight", processes=2)
    assert trajectory(run) == trajectory(built / "runs" / "slow-straight")


def full_disk(step: int) -> None:
    """Have the checkpoint of a step meet a full disk."""
    plain = checkpoint.publish_dir

    def publish(beside: Path, final: Path) -> bool:
        if final.name.endswith(f"{step:09d}"):
            raise OSError(28, "No space left on device")
        return plain(beside, final)

    checkpoint.publish_dir = publish


@pytest.mark.parametrize("step", [4, 10])
def test_an_error_of_the_writer_stops_all_processes_with_one_line(built: Path, step: int) -> None:
    """In the middle of the run, and at its very last step."""
    name = f"full-{step}"
    ranks = start(built, name, "--save-interval", "2", processes=2, prepare=partial(full_disk, step))
    assert ranks.wait() == 2, ranks.output()
    errors = [line for line in ranks.output().splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "No space left" in errors[0] and "earlier checkpoints are untouched" in errors[0]
    assert "Traceback" not in ranks.output() + ranks.output(1)
    assert saved(built, name)[0] == step - 2 and len(metrics(built / "runs" / name)) <= step + 1


def test_usr1_to_one_process_saves_and_ends_with_zero(built: Path) -> None:
    run = built / "runs" / "asked"
    ranks = start(built, "asked", "--save-interval", "100", "--until", "9", processes=2)
    ranks.wait_for(lambda: len(metrics(run)) >= 2)
    os.kill(ranks.processes[1].pid or 0, signal.SIGUSR1)
    assert ranks.wait() == 0, ranks.output()
    assert saved(built, "asked") == [len(metrics(run))]


def ask_while_it_loads(rank: str) -> None:
    """Have one process asked to stop before it has anything to save."""
    from training.run import world

    plain = world.check_device

    def check_device(options: Any) -> None:
        if os.environ["RANK"] == rank:
            os.kill(os.getpid(), signal.SIGUSR1)
        plain(options)

    world.check_device = check_device


def test_usr1_before_the_first_step_ends_all_processes_and_writes_nothing(built: Path) -> None:
    output = finish(built, "early", processes=2, prepare=partial(ask_while_it_loads, "1"))
    assert "stopped before the first step" in output
    assert not (built / "runs" / "early" / "run.json").exists() and not saved(built, "early")


def test_work_in_the_background_is_one_at_a_time_and_its_error_is_told_once() -> None:
    background, gate = Background(), threading.Event()

    def fail() -> None:
        gate.wait()
        raise UserError("no room")

    background.start(fail)
    assert not background.has_failed
    gate.set()
    with pytest.raises(UserError, match="no room"):
        background.wait()
    assert not background.has_failed
    background.wait()
    background.start(lambda: None)
    background.wait()


def test_the_copy_shares_no_memory_with_what_is_trained() -> None:
    state = {"state": {"a": {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "groups": [{"lr": 1.0}]}
    copied = on_host(state)
    state["state"]["a"]["step"] += 1  # type: ignore[index]
    state["state"]["a"]["exp_avg"].zero_()  # type: ignore[index]
    assert copied["state"]["a"]["step"] == 3 and copied["state"]["a"]["exp_avg"].sum() == 2
    assert copied["groups"] == [{"lr": 1.0}]
