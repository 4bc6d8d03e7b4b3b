"""Every size trains scaled down, and R1's four real phases run from one command, killed in each."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_teacher import make_teacher

from corpus.recipe.model import load_recipe
from tests.training.trainer_kit import (
    BATCH,
    ROOT,
    SEQ_LEN,
    STEP_TOKENS,
    VOCAB,
    Ranks,
    build,
    metrics,
    recipe_dict,
    saves_hold_the_step,
    trajectory,
)
from training.model.shapes import CURRICULA, SIZES, parameter_count, scaled_down
from training.run import checkpoint
from training.run.folder import load_weights
from training.train import main

STEPS = {"r1_phase1": 6, "r1_phase2": 5, "r1_mid1": 5, "r1_mid2": 4}


@pytest.fixture
def signals() -> Iterator[None]:
    """The run's handlers must not outlive it in the tests' process."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    build(folder, steps=10, samples=(60, 20))
    return folder


@pytest.mark.parametrize("name", SIZES)
def test_every_size_learns_scaled_down(name: str, built: Path, signals: None) -> None:
    main(
        ["--size", name, "--scaled-down", "--recipe", str(built / "recipes" / "mix.yaml"), "--workers", "0",
         "--data", str(built / "data"), "--out", str(built / "runs")]
    )  # fmt: skip
    rows = metrics(built / "runs" / f"{name}-scaled-mix")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[0]["loss"] == pytest.approx(math.log(VOCAB), abs=0.6)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.05
    weights, config = load_weights(built / "runs" / f"{name}-scaled-mix")
    assert config == scaled_down(SIZES[name])
    assert sum(tensor.numel() for tensor in weights.values()) == parameter_count(config)


def curriculum(folder: Path) -> None:
    """The recipes of R1 as they are, but for their sizes, their data and the teacher, below `folder`."""
    teacher = make_teacher(folder / "teacher")
    for number, name in enumerate(CURRICULA["r1"]):
        real: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())
        training = real["training"]
        training |= {"global_batch": BATCH, "canonical_nodes": 2, "virtual_epoch_samples": 3 * BATCH}
        training["schedule"]["warmup_steps"] = 2
        if "distillation" in training:
            training["distillation"]["teacher"] = str(teacher)
        small = recipe_dict(name, STEPS[name])
        recipe = real | {key: small[key] for key in ("tokenizer", "seq_len", "tokens", "mixture")}
        recipe["provenance"] = {}
        build(folder, name, samples=(60 + number, 20), recipe=recipe)


def test_the_four_phases_of_r1_with_a_kill_in_each(tmp_path: Path) -> None:
    curriculum(tmp_path)
    command = ["--size", "950m", "--scaled-down", "--save-interval", "2", "--workers", "1"]

    def start(out: str) -> Ranks:
        log = tmp_path / f"log-{out}"
        return Ranks([*command, "--out", out], 1, log, cwd=tmp_path, prepare=saves_hold_the_step)

    ranks = start("whole")
    assert ranks.wait() == 0, ranks.output()
    whole, run = (tmp_path / out / "950m-scaled-r1" for out in ("whole", "cut"))
    done = 0
    for steps in STEPS.values():
        # Past the phase's first checkpoint and short of its end.
        ranks = start("cut")
        ranks.wait_for(lambda rows=done + 3: len(metrics(run)) >= rows)
        ranks.kill()
        assert ranks.wait() == -signal.SIGKILL
        done += steps
    ranks = start("cut")
    assert ranks.wait() == 0 and "resumed at step 2, next batch identical: yes" in ranks.output()
    assert trajectory(run) == trajectory(whole)
    rows = metrics(run)
    assert [(row["recipe"], row["step"]) for row in rows] == [
        (name, step) for name, steps in STEPS.items() for step in range(1, steps + 1)
    ]

    last = {name: [row for row in rows if row["recipe"] == name][-1] for name in STEPS}
    real = {name: load_recipe(ROOT / "recipes" / f"{name}.yaml") for name in STEPS}
    for name, row in last.items():
        settings = real[name].training
        assert row["lr"] == pytest.approx(settings.optimizer.lr * settings.schedule.final_fraction)
        assert ("kd" in row) == (settings.distillation is not None)
    # The rate of the second phase warms up again; weights and Adam's state go through all four.
    assert rows[6]["lr"] == pytest.approx(2e-3) and rows[7]["lr"] == pytest.approx(4e-3)
    assert rows[6]["loss"] == pytest.approx(rows[5]["loss"], abs=0.5)
    newest = {path.name: path for path in checkpoint.listing(run / "checkpoints")}["phase03-step000000004"]
    adam = checkpoint.read_state(newest)["optimizers"]["AdamW"]["state"]
    assert {float(entry["step"]) for entry in adam.values()} == {float(sum(STEPS.values()))}
    weights, config = load_weights(run)
    assert config == dataclasses.replace(scaled_down(SIZES["950m"]), rope_theta=1e6)
    for name, tensor in load_weights(whole)[0].items():
        assert tensor.equal(weights[name])
    assert {path.stem.rsplit("-", 1)[0] for path in (run / "manifests").iterdir()} == set(STEPS)
    assert SEQ_LEN * BATCH == STEP_TOKENS == rows[0]["tokens"]
