"""Tasks of the harness."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import yaml

from corpus.base.errors import UserError
from tests.training.evaluation.evaluation_kit import TEXT, evaluate, ignore
from training.evaluate import main
from training.evaluation.scoring import Scorer


def test_without_the_harness_its_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[eval\]'"):
        main([str(folder / "runs" / "run"), "--tasks", "piqa"])


@pytest.fixture
def task_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("lm_eval")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    questions = [
        {"q": "the quick brown", "choices": ["fox", "lazy dog"], "answer": 0},
        {"q": "hello", "choices": ["42", "world"], "answer": 1},
        {"q": "the answer is", "choices": ["over", "42"], "answer": 1},
    ]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in questions))
    common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    tasks = {
        "own_choice": {
            "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}",
            "doc_to_target": "answer", "metric_list": [{"metric": "acc"}],
        },
        "own_text": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}} " + TEXT,
            "metric_list": [{"metric": "bits_per_byte"}],
        },
        "own_answer": {
            "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{choices[answer]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4}, "metric_list": [{"metric": "exact_match"}],
        },
    }  # fmt: skip
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **task}))
    return folder


def test_local_tasks_run_offline(
    folder: Path, scorer: Scorer, task_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "own_choice,own_text,own_answer"
    found = evaluate(capsys, folder, "--tasks", names, "--task-dir", task_dir)["tasks"]["results"]
    questions = [json.loads(line) for line in (task_dir.parent / "questions.jsonl").read_text().splitlines()]
    right = 0
    for each in questions:
        pairs = [scorer.split(each["q"], f" {choice}") for choice in each["choices"]]
        scores = [score for score, _ in scorer.log_likelihoods(pairs, ignore)]
        right += scores.index(max(scores)) == each["answer"]
    assert found["own_choice"]["acc,none"] == pytest.approx(right / 3)
    texts = [f"{each['q']} {TEXT}" for each in questions]
    bits = sum(score for text in texts for score, _ in scorer.log_likelihoods(scorer.windows(text), ignore))
    size = sum(len(text.encode()) for text in texts)
    assert found["own_text"]["bits_per_byte,none"] == pytest.approx(-bits / size / math.log(2), rel=1e-4)
    assert found["own_answer"]["exact_match,none"] == 0
    stored = json.loads((folder / "runs/run/eval/tasks-phase00-step000000004.json").read_text())
    assert stored["tasks"]["results"] == found


def test_unknown_tasks_are_refused(folder: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.evaluation import harness

    # Without the harness's own thousands of tasks, whose list takes seconds to read.
    local = harness.TaskManager(include_path=str(task_dir), include_defaults=False)
    monkeypatch.setattr(harness, "TaskManager", lambda **_: local)
    with pytest.raises(UserError, match="Did you mean 'own_choice'"):
        main([str(folder / "runs" / "run"), "--tasks", "own_choise", "--task-dir", str(task_dir)])
