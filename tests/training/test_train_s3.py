"""Training from a build in a store: the same trajectory as from the local folder, shards fetched into a cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import environment
from tests.corpus.streams.test_s3 import Store
from tests.corpus.streams.test_s3 import pytestmark as pytestmark
from tests.training.trainer_kit import ROOT, build, trajectory
from tests.waiting import PATIENCE


def train(folder: Path, name: str, data: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """A few steps in a process of its own, which is the only way to give it its own environment."""
    arguments = ["--size", "tiny", "--recipe", str(folder / "recipes" / "mix.yaml"), "--until", "4", "--run-name", name]
    places = ["--data", data, "--out", str(folder / "runs"), "--cache", str(folder / "cache")]
    return subprocess.run(
        [sys.executable, "training/train.py", *arguments, *places],
        cwd=ROOT, env=environment(**extra), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def test_training_from_a_store_takes_the_same_steps(tmp_path: Path) -> None:
    build(tmp_path)
    data = tmp_path / "data"
    tokenizer = data / "tokenizers" / "t" / "tokenizer.json"
    tokenizer.parent.mkdir(parents=True)
    tokenizer.write_text("{}")
    store = Store()
    client = store.bucket("builds")
    for path in data.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="builds", Key=f"all/{path.relative_to(data).as_posix()}", Body=path.read_bytes())
    far = train(tmp_path, "far", "s3://builds/all", **store.settings)
    store.server.shutdown()
    assert far.returncode == 0, far.stderr[-3000:]
    near = train(tmp_path, "near", str(data))
    assert near.returncode == 0, near.stderr[-3000:]
    steps = trajectory(tmp_path / "runs" / "far")
    assert len(steps) == 4 and steps == trajectory(tmp_path / "runs" / "near")
    assert (tmp_path / "runs" / "far" / "tokenizer" / "tokenizer.json").is_file()
    assert list((tmp_path / "cache").rglob("*.mds"))
