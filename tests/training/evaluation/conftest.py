"""A run to evaluate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.training.evaluation.evaluation_kit import make_tokenizer
from tests.training.trainer_kit import build
from training.evaluation.scoring import Scorer
from training.evaluation.subject import Subject, load_subject
from training.model.decoder import MobileLM
from training.run import checkpoint
from training.run.folder import RunFolder
from training.run.options import parse_args
from training.run.phases import data_fields, resolve
from training.run.standing import Standing

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at step 4 of 24, whose phase draws 135 of the 150 samples of source a, and b's 40 more than once."""
    folder = tmp_path_factory.mktemp("evaluate")
    recipe = build(folder)
    make_tokenizer(folder / "data" / "tokenizers" / "t" / "tokenizer.json")
    arguments = ["--size", "tiny", "--recipe", recipe, "--data", folder / "data", "--out", folder / "runs"]
    options = parse_args([*map(str, arguments), "--run-name", "run"])
    (phase,) = resolve(options)
    run = RunFolder(folder / "runs" / "run")
    run.start(options, [phase], 0, Standing().facts())
    run.enter_phase(phase, options.data)
    torch.manual_seed(0)
    model = MobileLM(phase.model)
    # Large weights make the model sure of something, so that greedy choices do not hang on rounding.
    weights = {name: 5 * tensor if tensor.dim() > 1 else tensor for name, tensor in model.state_dict().items()}
    facts = {
        "phase": 0, "recipe": phase.name, "step": 4, "tokens": 1024, "finished": False, "model": asdict(phase.model),
        "data": {"fields": data_fields(phase)}, "world_size": 1, "microbatch": 8,
    }  # fmt: skip
    checkpoint.write(run.checkpoints, facts, weights, {})
    return folder


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    return load_subject(folder / "runs" / "run", CPU)


@pytest.fixture(scope="module")
def scorer(subject: Subject) -> Scorer:
    return Scorer(subject, batch=3)
