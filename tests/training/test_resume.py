"""Killed, stopped, moved to other processes: a run goes on exactly where it was."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import pytest

from corpus.recipe.model import Recipe, load_recipe
from corpus.records.manifest import load_manifest
from tests.training.trainer_kit import Ranks, build, metrics, trajectory
from training.run import checkpoint
from training.run.environment import git_state
from training.run.folder import load_weights

STEPS = 24
"""Virtual epochs end at 6, 12 and 18; source b's second pass begins near step 17."""


class Bench:
    """One small build and the runs trained on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = build(folder, steps=STEPS)
        self.starts = 0

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def start(self, name: str, processes: int, *more: str) -> Ranks:
        """The training command, in the background."""
        self.starts += 1
        places = ["--data", f"{self.folder / 'data'}", "--out", f"{self.folder / 'runs'}", "--run-name", name]
        arguments = ["--size", "tiny", "--recipe", f"{self.recipe}", *places, "--save-interval", "5", *more]
        return Ranks(arguments, processes, self.folder / f"log{self.starts}")

    def finish(self, name: str, processes: int, *more: str) -> str:
        """The training command, to its end; returns what rank 0 printed."""
        ranks = self.start(name, processes, *more)
        assert ranks.wait() == 0, ranks.output()
        return ranks.output()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    bench.finish("base", 2)
    return bench


def test_the_uninterrupted_run_is_whole(bench: Bench) -> None:
    rows = metrics(bench.run("base"))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert rows[-1]["lr"] == pytest.approx(0.1 * 3e-3)
    assert {source for row in rows for source in row["sources"]} == {"a", "b"} and 0 < rows[-1]["data_wait"] < 1
    assert len({row["samples"] for row in rows}) == STEPS
    names = {path.name for path in bench.run("base").iterdir()}
    assert {"run.json", "manifest.json", "metrics.jsonl", "loss.png", "tensorboard", "checkpoints"} <= names
    weights, config = load_weights(bench.run("base"))
    assert config.vocab_size == weights["embed_tokens.weight"].shape[0] == 512
    record = json.loads((bench.run("base") / "run.json").read_text())
    assert record["size"] == "tiny"
    (phase,), (start,) = record["phases"], record["starts"]
    assert Recipe.model_validate(phase["recipe"]) == load_recipe(bench.recipe)
    assert phase["manifest"] == load_manifest(bench.run("base")).fingerprint
    assert phase["steps"] == STEPS and phase["model"]["vocab_size"] == 512
    assert start["processes"] == 2 and start["command"][0] == "train.py" and start["resumed"] is None
    assert {"python", "torch", "mosaicml", "mosaicml-streaming", "numpy"} <= set(start["versions"])
    assert start["git"] == git_state()


def test_killed_anywhere_every_later_step_is_the_same(bench: Bench) -> None:
    """SIGTERM to one process, SIGKILL at a random step, SIGKILL inside a save, each time with other data workers."""
    run = bench.run("killed")
    at = random.Random(20).randint(7, 12)
    ranks = bench.start("killed", 2, "--workers", "1")
    ranks.wait_for(lambda: len(metrics(run)) >= 3)
    ranks.processes[1].terminate()
    assert ranks.wait() == 0, ranks.output()
    stopped = checkpoint.listing(run / "checkpoints")[0]
    assert checkpoint.read_record(stopped).step == len(metrics(run)) < at

    ranks = bench.start("killed", 2, "--workers", "0")
    ranks.wait_for(lambda: len(metrics(run)) >= at)
    ranks.kill()
    assert ranks.wait() == -signal.SIGKILL

    ranks = bench.start("killed", 2, "--workers", "4")
    ranks.wait_for(lambda: len(metrics(run)) >= 15 and list((run / "checkpoints").glob(".writing.*")))
    ranks.kill()
    assert ranks.wait() == -signal.SIGKILL

    output = bench.finish("killed", 2)
    assert "next batch identical: yes" in output
    assert trajectory(run) == trajectory(bench.run("base"))
    assert not list((run / "checkpoints").glob(".writing.*"))


def test_any_number_of_processes_draws_the_same_samples(bench: Bench) -> None:
    """1 -> 2 -> 4 -> 1 processes, each change at the end of a virtual epoch, the last in source b's second pass.

    Four processes that stop on the way go on bit for bit (two add the same two numbers in any order; four do not).
    """
    run, twin = bench.run("moved"), bench.run("moved-twin")
    for processes, until in ((1, 6), (2, 12), (4, 18), (1, STEPS)):
        if processes == 4:
            shutil.copytree(run, twin)
            bench.finish("moved-twin", 4, "--until", "15")
            bench.finish("moved-twin", 4, "--until", "18")
        output = bench.finish("moved", processes, "--until", str(until), "--workers", str(processes % 2))
        assert until == 6 or f"resumed at step {until - 6}, next batch identical: yes" in output
        assert len(metrics(run)) == until
        assert processes != 4 or trajectory(run) == trajectory(twin)
    base = metrics(bench.run("base"))
    assert [row["samples"] for row in metrics(run)] == [row["samples"] for row in base]
    assert [row["loss"] for row in metrics(run)] == pytest.approx([row["loss"] for row in base], abs=2e-3)


def test_fsdp2_trains_like_ddp_and_resumes(bench: Bench) -> None:
    """Sharded from the start, continued sharded, then continued replicated on one process."""
    run = bench.run("sharded")
    bench.finish("sharded", 2, "--parallel", "fsdp2", "--until", "4")
    assert "identical: yes" in bench.finish("sharded", 2, "--parallel", "fsdp2", "--until", "8")
    assert "identical: yes" in bench.finish("sharded", 1, "--until", "9")
    base = metrics(bench.run("base"))[:9]
    assert [row["samples"] for row in metrics(run)] == [row["samples"] for row in base]
    assert [row["loss"] for row in metrics(run)] == pytest.approx([row["loss"] for row in base], abs=2e-3)


def test_checkpointed_activations_change_no_bit(bench: Bench) -> None:
    bench.finish("recomputed", 2, "--checkpoint-activations", "on", "--until", "3")
    assert trajectory(bench.run("recomputed")) == trajectory(bench.run("base"))[:3]


def _copy(bench: Bench, name: str) -> Path:
    shutil.copytree(bench.run("base"), bench.run(name), ignore=shutil.ignore_patterns(".lock"))
    return bench.run(name)


def test_a_damaged_newest_checkpoint_is_passed_over(bench: Bench) -> None:
    run = _copy(bench, "damaged")
    newest = checkpoint.listing(run / "checkpoints")[0]
    content = bytearray((newest / checkpoint.STATE_FILE).read_bytes())
    content[1000] ^= 1
    (newest / checkpoint.STATE_FILE).write_bytes(content)
    output = bench.finish("damaged", 2)
    assert "passing over a damaged checkpoint" in output
    assert "resumed at step 20, next batch identical: yes" in output
    assert trajectory(run) == trajectory(bench.run("base"))


def test_changed_data_is_refused_by_name_unless_allowed(bench: Bench) -> None:
    run = _copy(bench, "changed")
    shutil.rmtree(checkpoint.listing(run / "checkpoints")[0])
    ranks = bench.start("changed", 2, "--set", "seed=3")
    assert ranks.wait() == 2
    assert ranks.output().count("error:") == 1 and "Traceback" not in ranks.output() + ranks.output(1)
    assert "seed was 17, is 3" in ranks.output() and "--allow-changed-data" in ranks.output()
    bench.finish("changed", 2, "--set", "seed=3", "--allow-changed-data")
    record = checkpoint.verify(checkpoint.listing(run / "checkpoints")[0])
    assert record.data["changes"] == [{"step": 20, "changed": {"seed": [17, 3]}}]
    before, after = metrics(bench.run("base")), metrics(run)
    assert [row["samples"] for row in after[:20]] == [row["samples"] for row in before[:20]]
    assert after[20]["samples"] != before[20]["samples"]
