"""Steps with a bad loss: judged alike on all processes, skipped or the run's end, and the same after a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from corpus.recipe.training import BadLoss
from tests.training.distillation.teacher_kit import SHAPE
from tests.training.trainer_kit import VOCAB, Ranks, build, metrics, saves_hold_the_step, trajectory, write_stream
from training.run import checkpoint
from training.run.callbacks.guard import BadLossRule

STEPS = 14
LOSSES = st.floats(0.01, 20) | st.sampled_from([math.nan, math.inf])


@given(st.lists(st.tuples(LOSSES, LOSSES), max_size=40), st.integers(0, 40), st.integers(2, 5), st.integers(1, 4))
def test_judgements_go_on_from_a_saved_state(
    steps: list[tuple[float, float]], cut: int, window: int, max_skips: int
) -> None:
    settings = BadLoss(action="skip", spike=1.5, window=window, max_skips=max_skips)
    whole, first, second = (BadLossRule(settings) for _ in range(3))
    expected = [whole.judge(*step) for step in steps]
    got = [first.judge(*step) for step in steps[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [second.judge(*step) for step in steps[cut:]]
    assert repr(got) == repr(expected)  # nan is not equal to itself
    skipped = sum(1 for verdict in expected if verdict.problem and not verdict.stop)
    assert second.skips == skipped <= max_skips
    for verdict in expected:
        assert verdict.problem or (math.isfinite(verdict.loss) and math.isfinite(verdict.grad_norm))


def test_a_jump_is_measured_against_the_median_of_the_good_steps_before() -> None:
    rule = BadLossRule(BadLoss(action="skip", spike=2.0, window=3, max_skips=2))
    assert [bool(rule.judge(loss, 1.0).problem) for loss in (9.0, 1.0, 30.0, 18.1, 18.0)] == [False] * 3 + [True, False]
    assert rule.state_dict() == {"skips": 1, "losses": [1.0, 30.0, 18.0]}
    assert BadLossRule(BadLoss()).judge(1e9, 1e9).problem is None
    assert BadLossRule(BadLoss()).judge(1.0, math.inf).stop
    assert BadLossRule(BadLoss(action="skip")).judge(math.nan, 1.0, fresh=True).stop


class Bench:
    """A run whose teacher has no number to say about id 1, which begins a few of the samples."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_stream(folder / "data" / "streams" / "a-60", 60, 0, marked=(5, 40))
        recipe = build(folder, steps=STEPS, samples=(60, 20))
        torch.manual_seed(0)
        teacher = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, **SHAPE))
        with torch.no_grad():
            teacher.model.embed_tokens.weight[1] = math.nan
        teacher.save_pretrained(folder / "teacher")
        self.arguments = [
            "--size", "tiny", "--recipe", str(recipe), "--data", str(folder / "data"), "--out", str(folder / "runs"),
            "--workers", "0", "--set", "distillation=" + json.dumps({"teacher": str(folder / "teacher")}),
        ]  # fmt: skip

    def start(self, name: str, processes: int, *more: str, **rule: Any) -> Ranks:
        settings = {"action": "skip", "spike": 1.02, "window": 3, "max_skips": 9, **rule}
        arguments = [*self.arguments, "--run-name", name, "--set", f"bad_loss={json.dumps(settings)}", *more]
        return Ranks(arguments, processes, self.folder / f"log-{name}", prepare=saves_hold_the_step)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("guard"))


def test_bad_steps_are_skipped_by_all_processes_and_a_killed_run_skips_the_same(bench: Bench) -> None:
    """Not-a-number on one process only, and jumps of the loss; killed between two skips."""
    ranks = bench.start("whole", 2, "--save-interval", "1", "--keep", "99")
    assert ranks.wait() == 0, ranks.output()
    whole = bench.folder / "runs" / "whole"
    rows = metrics(whole)
    problems = {row["step"]: row["skipped"] for row in rows if "skipped" in row}
    kinds = {"median" if "times the median of the 3 steps" in text else text for text in problems.values()}
    assert kinds == {"the loss is nan", "median"}, problems
    assert [row["skips"] for row in rows] == [sum(step <= row["step"] for step in problems) for row in rows]
    assert ranks.output().count("skipped (") == len(problems) < 9
    for step, problem in problems.items():
        bad = json.loads((whole / f"bad-batch-phase00-step{step:09d}.json").read_text())
        assert bad["problem"] == problem and [len(rank) for rank in bad["ranks"]] == [4, 4]
    # Weights and Adam's moments change at every step but the skipped ones.
    saved = {record.step: record for record in map(checkpoint.verify, checkpoint.listing(whole / "checkpoints"))}
    for step in range(2, STEPS + 1):
        same = saved[step].files[checkpoint.WEIGHTS_FILE] == saved[step - 1].files[checkpoint.WEIGHTS_FILE]
        assert same == (step in problems)
    state = checkpoint.read_state(checkpoint.listing(whole / "checkpoints")[0])
    assert {float(entry["step"]) for entry in state["optimizers"]["AdamW"]["state"].values()} == {STEPS - len(problems)}

    cut = bench.folder / "runs" / "cut"
    assert min(problems) <= 8 < max(problems)
    ranks = bench.start("cut", 2, "--save-interval", "4")
    ranks.wait_for(lambda: len(metrics(cut)) >= 9)
    ranks.kill()
    ranks.wait()
    ranks = bench.start("cut", 2, "--save-interval", "4")
    assert ranks.wait() == 0 and "resumed at step 8, next batch identical: yes" in ranks.output()
    assert trajectory(cut) == trajectory(whole)


def test_more_skips_than_allowed_stop_the_run_before_the_update(bench: Bench) -> None:
    ranks = bench.start("stopped", 1, max_skips=1)
    assert ranks.wait() == 2
    rows = metrics(bench.folder / "runs" / "stopped")
    assert ["skipped" in row for row in rows].count(True) == 2 and "skipped" in rows[-1] and rows[-1]["skips"] == 1
    assert "--set bad_loss.max_skips=..." in ranks.output() and "Traceback" not in ranks.output()
    assert (bench.folder / "runs" / "stopped" / f"bad-batch-phase00-step{rows[-1]['step']:09d}.json").is_file()
