"""What a command may do with a run that is there: looked up from records, before anything is written or imported."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus.base.errors import UserError
from tests.training.trainer_kit import ROOT, STEP_TOKENS, build
from training.run import checkpoint
from training.run.folder import RunFolder
from training.run.options import parse_args
from training.run.phases import Phase, data_fields, resolve
from training.run.standing import Standing, last_steps, look, stand

STEPS = 24


class Command:
    """A training command on a small build, and the run that an earlier one left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RunFolder(folder / "runs" / "tiny-mix")
        self.arguments = [
            "--size", "tiny", "--recipe", str(build(folder, steps=STEPS)), "--data", str(folder / "data"),
            "--out", str(folder / "runs"),
        ]  # fmt: skip

    def phases(self, *more: str) -> list[Phase]:
        return resolve(parse_args([*self.arguments, *more]))

    def stop_at(self, step: int, *more: str, **facts: Any) -> None:
        """Leave a run that was stopped there."""
        options = parse_args([*self.arguments, *more])
        phases = resolve(options)
        self.run.root.mkdir(parents=True)
        self.run.start(options, phases, 0, Standing().facts())
        content = {
            "phase": 0, "recipe": "mix", "step": step, "tokens": step * STEP_TOKENS,
            "finished": step == phases[0].steps, "model": dataclasses.asdict(phases[0].model),
            "document_mask": phases[0].recipe.document_mask,
            "data": {"step": step, "fields": data_fields(phases[0]), "changes": []}, "world_size": 1, "microbatch": 8,
        }  # fmt: skip
        checkpoint.write(self.run.checkpoints, content | facts, {"a": torch.ones(2)}, {"b": torch.ones(2)})

    def stand(self, *more: str) -> Standing:
        found = checkpoint.newest_good(self.run.checkpoints, print)
        return stand(self.run, parse_args([*self.arguments, *more]), self.phases(*more), found)

    def refused(self, *more: str) -> str:
        with pytest.raises(UserError) as error:
            self.stand(*more)
        return error.value.one_line()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_a_change_of_the_model_is_refused_by_name_and_recorded_when_let_pass(command: Command) -> None:
    command.stop_at(5)
    changed = ["--set", "document_mask=true", "--set", "model.rope_theta=500"]
    text = command.refused(*changed)
    assert "document_mask was False, is True" in text and "rope_theta was 10000.0, is 500.0" in text
    assert "--allow-changed-model" in text and "--load" in text
    standing = command.stand(*changed, "--allow-changed-model")
    model = {"rope_theta": [10000.0, 500.0], "document_mask": [False, True]}
    assert standing.allowed == {"model": model} and standing.record
    assert standing.record.model_changes == [{"step": 5, "changed": model}]
    assert standing.facts()["allowed"] == {"model": model}
    assert "mix: document_mask False -> True" in standing.changes
    assert (standing.phase, standing.step) == (0, 5)


def test_a_checkpoint_that_does_not_say_the_mask_is_held_against_the_runs_record(command: Command) -> None:
    command.stop_at(5, document_mask=None)
    assert "document_mask was False, is True" in command.refused("--set", "document_mask=true")
    assert command.stand().step == 5


def test_tensors_of_another_shape_are_never_let_pass(command: Command) -> None:
    model = dataclasses.asdict(command.phases()[0].model) | {"ffn": 64}
    command.stop_at(5, model=model)
    assert "ffn was 64" in command.refused("--allow-changed-model")


def test_an_unfinished_phase_is_laid_out_anew_only_when_asked_to(command: Command) -> None:
    command.stop_at(5)
    for steps in (STEPS - 8, STEPS + 8):
        tokens = f"tokens={steps * STEP_TOKENS}"
        text = command.refused("--set", tokens)
        assert f"laid out over 24 steps and this command asks for {steps}" in text and "--load" in text
        assert command.stand("--set", tokens, "--allow-changed-data").allowed == {"data": {"total_steps": [24, steps]}}
    assert "seed was 17, is 3" in command.refused("--set", "seed=3", "--set", f"tokens={STEP_TOKENS * 32}")
    few = ["--set", f"tokens={4 * STEP_TOKENS}", "--set", "schedule.warmup_steps=0", "--allow-changed-data"]
    assert "at step 5 of a phase that has 4" in command.refused(*few)


def test_a_finished_phase_is_not_extended(command: Command) -> None:
    command.stop_at(STEPS)
    for flags in ([], ["--allow-changed-data"]):
        text = command.refused("--set", f"tokens={(STEPS + 8) * STEP_TOKENS}", *flags)
        assert f"--load {command.run.root} --run-name NAME --set tokens={8 * STEP_TOKENS}" in text
    standing = command.stand("--set", f"tokens={8 * STEP_TOKENS}", "--set", "optimizer.lr=1e-4")
    assert standing.is_done([8])
    assert standing.ignored == ["mix: tokens 6144 -> 2048", "mix: optimizer.lr 0.003 -> 0.0001"]


def test_a_finished_phase_stays_described_as_it_was_trained(command: Command, tmp_path: Path) -> None:
    command.stop_at(STEPS)
    other = build(tmp_path, "next", steps=6)
    recipe = command.arguments.index("--recipe")
    command.arguments[recipe : recipe + 2] = ["--phases", f"{tmp_path / 'recipes' / 'mix.yaml'},{other}"]
    command.arguments += ["--run-name", "tiny-mix", "--set", "optimizer.lr=1e-4"]
    standing = command.stand()
    assert (standing.phase, standing.step) == (1, 0) and not standing.is_done([STEPS, 6])
    command.run.start(parse_args(command.arguments), command.phases(), standing.phase, standing.facts())
    rates = [
        phase["recipe"]["training"]["optimizer"]["lr"] for phase in json.loads(command.run.record.read_text())["phases"]
    ]
    assert rates == [3e-3, 1e-4]


def test_a_run_that_is_over_is_told_from_its_records(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    options, phases = parse_args(command.arguments), command.phases()
    assert look(command.run, options, phases) is None
    command.stop_at(STEPS)
    standing = look(command.run, options, phases)
    assert standing and standing.is_done(last_steps(phases, None))
    monkeypatch.setenv("WORLD_SIZE", "2")
    # Another command may be writing it this very second, and the processes of a job must see the same.
    assert look(command.run, options, phases) is None
    monkeypatch.delenv("WORLD_SIZE")
    (newest,) = checkpoint.listing(command.run.checkpoints)
    content = bytearray((newest / checkpoint.STATE_FILE).read_bytes())
    content[-30] ^= 1
    (newest / checkpoint.STATE_FILE).write_bytes(content)
    assert look(command.run, options, phases) is None


def test_nothing_left_and_refusals_come_before_torch_and_change_nothing(command: Command) -> None:
    command.stop_at(STEPS)
    before = command.run.record.read_bytes()

    def start(*more: str) -> tuple[int, str]:
        code = (
            "import sys; from training.train import main\n"
            f"try: main({[*command.arguments, *more]!r})\n"
            "finally: assert not {'torch', 'composer', 'streaming'} & set(sys.modules)"
        )
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert "Traceback" not in result.stderr, result.stderr
        return result.returncode, result.stdout + result.stderr

    code, text = start("--set", "optimizer.lr=1e-4")
    assert code == 0 and "nothing left to train" in text
    assert "left out and not recorded: mix: optimizer.lr 0.003 -> 0.0001" in text
    code, text = start("--set", f"tokens={(STEPS + 8) * STEP_TOKENS}")
    assert code == 2 and "--load" in text and text.count("\n") == 1
    code, text = start("--run-name", "other", "--load", str(command.folder / "none"))
    assert code == 2 and "no such run, folder or file" in text and text.count("\n") == 1
    code, text = start("--run-name", "x" * 300)
    assert code == 2 and "File name too long" in text and text.count("\n") == 1
    assert command.run.record.read_bytes() == before and not (command.folder / "runs" / "other").exists()
