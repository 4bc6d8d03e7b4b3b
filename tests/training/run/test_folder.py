"""A run's folder: whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.base.errors import UserError
from tests.training.trainer_kit import build
from training.run.folder import RunFolder
from training.run.options import parse_args
from training.run.phases import resolve
from training.run.standing import stand


def test_a_run_folder_is_not_reused_for_something_else(tmp_path: Path) -> None:
    built = tmp_path / "built"
    build(built)
    other = built / "recipes" / "else.yaml"
    build(built, "else", 4)

    def start(*arguments: str) -> list[str]:
        data = ["--data", str(built / "data")]
        options = parse_args(["--size", "tiny", "--recipe", str(built / "recipes" / "mix.yaml"), *data, *arguments])
        folder, phases = RunFolder(tmp_path / "run"), resolve(options)
        standing = stand(folder, options, phases, None)
        folder.start(options, phases, standing.phase, standing.facts())
        return standing.changes

    assert start() == []
    with pytest.raises(UserError, match=r"holds a run of size tiny over mix. Choose another --run-name"):
        start("--recipe", str(other))
    with pytest.raises(UserError, match="holds a run of size tiny over mix"):
        start("--size", "125m", "--fit-vocab")
    with pytest.raises(UserError, match="holds a run of size tiny over mix"):
        start("--scaled-down")
    assert start("--set", "optimizer.lr=0.5") == ["mix: optimizer.lr 0.003 -> 0.5"]
    for name in ("a/b", "..", ""):
        with pytest.raises(SystemExit):
            parse_args(["--size", "tiny", "--run-name", name])
