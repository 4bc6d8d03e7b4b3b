"""The records of a run: a start that is refused changes none, and all that was trained on stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from corpus.records.manifest import load_manifest
from tests.training.trainer_kit import Ranks, build, metrics
from training.evaluation.subject import load_subject
from training.hf.source import open_source
from training.run import checkpoint
from training.run.folder import phase_manifest


def start(folder: Path, *more: str, processes: int = 1) -> Ranks:
    arguments = [
        "--size", "tiny", "--recipe", str(folder / "recipes" / "mix.yaml"), "--data", str(folder / "data"), "--out",
        str(folder / "runs"), "--save-interval", "2", *more,
    ]  # fmt: skip
    return Ranks(arguments, processes, folder / f"log{len(list(folder.glob('log*')))}")


def records(run: Path) -> dict[str, bytes]:
    files = [run / "run.json", run / "manifest.json", run / "metrics.jsonl", *(run / "manifests").iterdir()]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run paused at step 4, whose newest checkpoint is of step 2: a start would cut the metrics."""
    folder = tmp_path_factory.mktemp("paused")
    build(folder, steps=8, samples=(60, 20))
    ranks = start(folder, "--until", "4")
    assert ranks.wait() == 0, ranks.output()
    run = folder / "runs" / "tiny-mix"
    shutil.rmtree(checkpoint.listing(run / "checkpoints")[0])
    assert len(metrics(run)) == 4 and checkpoint.read_record(checkpoint.listing(run / "checkpoints")[0]).step == 2
    return folder


def copy(paused: Path, tmp_path: Path) -> Path:
    shutil.copytree(paused, tmp_path / "own", ignore=shutil.ignore_patterns(".lock*", "log*"))
    return tmp_path / "own"


def test_a_refused_start_changes_no_record_and_a_manifest_that_was_trained_on_stays(
    paused: Path, tmp_path: Path
) -> None:
    folder = copy(paused, tmp_path)
    run = folder / "runs" / "tiny-mix"
    first, before = load_manifest(run), records(run)
    build(folder, steps=8, samples=(50, 20))
    ranks = start(folder, processes=2)
    assert ranks.wait() == 2 and "other data: manifest was" in ranks.output(), ranks.output()
    assert records(run) == before
    assert open_source(run).manifest == load_subject(run, torch.device("cpu")).manifest == first

    ranks = start(folder, "--allow-changed-data")
    assert ranks.wait() == 0 and "let pass by --allow-changed-data: manifest" in ranks.output(), ranks.output()
    second = load_manifest(folder / "data" / "mix")
    assert open_source(run).manifest == second == load_manifest(run) != first
    assert {phase_manifest(run, "mix", each.fingerprint).fingerprint for each in (first, second)} == {
        first.fingerprint, second.fingerprint,
    }  # fmt: skip
    record = json.loads((run / "run.json").read_text())
    assert record["starts"][1]["allowed"] == {"data": {"manifest": [first.fingerprint, second.fingerprint]}}
    assert record["phases"][0]["manifest"] == second.fingerprint
    assert len(metrics(run)) == 8


def test_a_start_that_fails_after_the_checks_changes_no_record_either(paused: Path, tmp_path: Path) -> None:
    folder = copy(paused, tmp_path)
    run = folder / "runs" / "tiny-mix"
    before = records(run)
    for shard in (folder / "data" / "streams" / "a-60").glob("shard.*"):
        shard.unlink()
    ranks = start(folder)
    assert ranks.wait() == 2 and "missing" in ranks.output(), ranks.output()
    assert records(run) == before


def test_a_finished_run_is_not_touched_by_a_command_that_trains_nothing(paused: Path, tmp_path: Path) -> None:
    folder = copy(paused, tmp_path)
    run = folder / "runs" / "tiny-mix"
    # The model changes in the middle, on purpose: every later checkpoint says so.
    ranks = start(folder, "--set", "document_mask=true", "--allow-changed-model")
    assert ranks.wait() == 0, ranks.output()
    newest = checkpoint.read_record(checkpoint.listing(run / "checkpoints")[0])
    assert newest.finished and newest.document_mask
    assert newest.model_changes == [{"step": 2, "changed": {"document_mask": [False, True]}}]
    before = records(run) | {"plot": (run / "loss.png").read_bytes()}
    # Two processes go the long way, over torch.
    for processes in (1, 2):
        ranks = start(folder, "--set", "optimizer.lr=1e-4", "--set", "document_mask=true", processes=processes)
        assert ranks.wait() == 0 and "nothing left to train" in ranks.output(), ranks.output()
        assert "stopped before the end" not in ranks.output()
        assert records(run) | {"plot": (run / "loss.png").read_bytes()} == before


def test_the_largest_seed_trains_on_every_rank(tmp_path: Path) -> None:
    """Composer adds the rank to it."""
    build(tmp_path, steps=4, samples=(60, 20))
    ranks = start(tmp_path, "--set", f"seed={2**32 - 1}", processes=2)
    assert ranks.wait() == 0, ranks.output() + ranks.output(1)
