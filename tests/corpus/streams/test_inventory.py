"""What lies in a data folder, what of it nobody uses, and taking that away."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from corpus.base.locks import Lock
from corpus.streams.inventory import take_inventory
from tests.conftest import documents, recipe_dict, run_command, user_error, write_jsonl


def test_unused_streams_are_told_and_pruned(tmp_path: Path) -> None:
    data, recipe = tmp_path / "data", tmp_path / "small.yaml"
    for seed in (1, 2, 3):
        write_jsonl(tmp_path / "a.jsonl", documents(60, seed=seed))
        recipe.write_text(yaml.safe_dump(recipe_dict({"a": ["a.jsonl"]}, tokens=32 * 4 * 5)))
        result = run_command("-m", "corpus.build", str(recipe), "--out", str(data))
        assert result.returncode == 0, result.stderr
    shown = run_command("-m", "corpus.inspect", str(data), "--json")
    told = json.loads(shown.stdout)
    assert list(told["builds"]) == ["small"] and [len(stream["builds"]) for stream in told["streams"]].count(1) == 1
    assert len(told["streams"]) == 3 and len(told["unused"]) == 4  # two streams, two tokenizers trained on other text
    assert "nobody" in run_command("-m", "corpus.inspect", str(data)).stdout

    assert "Add --yes" in user_error(run_command("-m", "corpus.inspect", str(data), "--prune"))
    assert len(take_inventory(data).unused) == 4
    busy = next(path for path in take_inventory(data).unused if path.parent.name == "streams")
    lock = Lock(data / ".build" / f"{busy.name}.lock")
    assert lock.exclusive(wait=False)
    assert run_command("-m", "corpus.inspect", str(data), "--prune", "--yes").stdout.count("deleted ") == 1
    assert busy.is_dir()  # a build is at work on it; tokenizers wait too
    lock.close()
    run_command("-m", "corpus.inspect", str(data), "--prune", "--yes")
    assert not busy.exists() and take_inventory(data).unused == []
    assert run_command("-m", "corpus.inspect", str(data / "small"), "--verify").returncode == 0


def test_the_recipe_lies_beside_the_manifest_and_the_manifest_has_a_date(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    write_jsonl(tmp_path / "a.jsonl", documents(60))
    raw = recipe_dict({"a": ["a.jsonl"]}, tokens=32 * 4 * 5)
    del raw["sources"]["a"]["redistributable"]
    recipe.write_text("# why we mix so\n" + yaml.safe_dump(raw))
    run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"))
    build = tmp_path / "data" / "small"
    assert (build / "recipe.yaml").read_text() == recipe.read_text()
    manifest = json.loads((build / "manifest.json").read_bytes())
    assert manifest["built"]["finished"].startswith("20")
    # Nobody said that these files may be passed on.
    assert manifest["sources"]["a"]["redistributable"] is False
