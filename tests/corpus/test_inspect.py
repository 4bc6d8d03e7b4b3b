"""`corpus.inspect` on builds, streams and damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import documents, recipe_dict, run_command, user_error, write_jsonl


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    hostile = [{"text": "\x1b[31mred\x1b[0m <script>alert(1)</script> [bold]markup[/bold]"}] * 20
    write_jsonl(folder / "a.jsonl", [*documents(100, seed=1), *hostile])
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(recipe_dict({"a": ["a.jsonl"]}, {"a": 2.0}, tokens=32 * 4 * 200)))
    result = run_command("-m", "corpus.build", str(recipe), "--out", str(folder / "data"))
    assert result.returncode == 0, result.stderr
    return folder / "data"


def test_a_build_as_table_and_as_json(data: Path) -> None:
    table = run_command("-m", "corpus.inspect", str(data / "small")).stdout
    parsed = json.loads(run_command("-m", "corpus.inspect", str(data / "small"), "--json").stdout)
    epochs = parsed["sources"]["a"]["epochs"]
    assert epochs > 4 and f"{epochs:.2f} !" in table  # marked above four epochs
    assert "sum to 2" in table and parsed["fingerprint"] in table


def test_a_stream(data: Path) -> None:
    stream = next((data / "streams").iterdir())
    assert "120 read, 120 kept" in run_command("-m", "corpus.inspect", str(stream)).stdout


def test_verify_names_the_damaged_shard(data: Path, tmp_path: Path) -> None:
    good = run_command("-m", "corpus.inspect", str(data / "small"), "--verify")
    assert good.returncode == 0 and "every shard matches" in good.stdout
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    shard = sorted(copy.glob("streams/*/units/*/shard.*.zstd"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    bad = run_command("-m", "corpus.inspect", str(copy / "small"), "--verify")
    assert bad.returncode == 1 and f"{shard.parent.name}/{shard.name}: damaged" in bad.stdout
    shard.unlink()
    assert f"{shard.name}: missing" in run_command("-m", "corpus.inspect", str(copy / "small"), "--verify").stdout


def test_samples_are_decoded_and_cannot_drive_the_terminal(data: Path) -> None:
    result = run_command("-m", "corpus.inspect", str(data / "small"), "--samples", "500", "a")
    assert "--- sample 0 of" in result.stdout and "<script>" in result.stdout and "[bold]" in result.stdout
    assert "\x1b" not in result.stdout


def test_user_mistakes(data: Path, tmp_path: Path) -> None:
    assert "neither a manifest nor a stream" in user_error(run_command("-m", "corpus.inspect", str(tmp_path)))
    assert "Did you mean 'a'" in user_error(
        run_command("-m", "corpus.inspect", str(data / "small"), "--samples", "1", "aa")
    )
    edited = tmp_path / "manifest.json"
    edited.write_text((data / "small" / "manifest.json").read_text().replace('"steps": 200', '"steps": 201'))
    assert "does not match its fingerprint" in user_error(run_command("-m", "corpus.inspect", str(edited)))
