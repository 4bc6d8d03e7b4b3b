"""Weights & Biases and TensorBoard show a run's phases one after the other."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.training.trainer_kit import Ranks, build, metrics
from training.run.callbacks.tracking import run_id

FAKE = """
import json, os
class Config:
    def update(self, values, allow_val_change=False): pass
class Run:
    config = Config()
    def log(self, metrics, step=None): say("log", step=step, loss=metrics.get("train/loss"))
    def finish(self): say("finish")
def say(what, **facts):
    with open(os.environ["FAKE_WANDB"], "a") as file: file.write(json.dumps({"what": what, **facts}) + chr(10))
def init(**facts):
    say("init", **facts)
    return Run()
"""


def use_fake() -> None:
    """As if wandb were installed; its stand-in lies in the working folder's `fake`."""
    os.environ["FAKE_WANDB"] = str(Path.cwd() / "log")
    sys.path.insert(0, str(Path.cwd() / "fake"))


def board(folder: Path) -> list[int]:
    """The steps of train/loss in a TensorBoard folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def test_steps_are_counted_over_phases_and_starts(tmp_path: Path) -> None:
    paths = [build(tmp_path, name, steps) for name, steps in (("one", 5), ("two", 4))]
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(FAKE)
    places = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs"), "--run-name", "run"]
    command = ["--size", "tiny", "--phases", ",".join(map(str, paths)), *places]
    command += ["--workers", "0", "--wandb", "--wandb-project", "mine"]
    for more in (["--until", "7"], []):
        ranks = Ranks([*command, *more], 1, tmp_path / "log-of-rank", cwd=tmp_path, prepare=use_fake)
        assert ranks.wait() == 0, ranks.output()
    run = tmp_path / "runs" / "run"
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    assert losses == [(step, row["loss"]) for step, row in enumerate(metrics(run), 1)]
    steps = [line["step"] for line in lines if line["what"] == "log" and line["step"] is not None]
    assert steps == sorted(steps)
    begun = [line for line in lines if line["what"] == "init"]
    assert len(begun) == 3 == sum(line["what"] == "finish" for line in lines)
    assert {line["id"] for line in begun} == {run_id(run, "mine")} and {line["project"] for line in begun} == {"mine"}
    assert board(run / "tensorboard" / "phase00-one") == [1, 2, 3, 4, 5]
    assert board(run / "tensorboard" / "phase01-two") == [6, 7, 8, 9]


def test_runs_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place / "run").mkdir(parents=True)
    here, there = (run_id(tmp_path / place / "run", "p") for place in ("here", "there"))
    assert here != there and here == run_id(tmp_path / "here" / "run", "p")
    assert run_id(tmp_path / "here" / "run", "other") != here
