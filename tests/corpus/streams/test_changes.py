"""What is said before streams are made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from tests.conftest import documents, run_command, write_jsonl
from tests.corpus.test_build import build


def test_what_changed_is_said_before_streams_are_made_anew(make_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe, data = make_recipe(), tmp_path / "data"

    def told(*options: str) -> list[str]:
        done = run_command("-m", "corpus.build", str(recipe), "--out", str(data), *options)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("made anew")]

    build(recipe, data)
    assert told() == []
    assert told("--max-tokens", "500") == []  # a trial is no change of the whole
    # A tokenizer that is trained on all sources makes all streams anew.
    write_jsonl(tmp_path / "b.jsonl", documents(61, seed=2))
    assert told() == [
        "made anew, as the tokenizer changed since the last build: a",
        "made anew, as the source's files and the tokenizer changed since the last build: b",
    ]
    raw = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**raw, "cleaning": [{"step": "length", "min_chars": 20}]}))
    assert told() == ["made anew, as the cleaning steps changed since the last build: a, b"]
