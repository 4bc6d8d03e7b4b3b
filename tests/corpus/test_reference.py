"""The reference of the recipe format: complete, up to date, and its example recipes and snippets run as printed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corpus.cleaning.steps import CleaningStep
from corpus.recipe.model import load_recipe
from corpus.recipe.reference import about, markdown, sections, undocumented
from tests.conftest import ROOT, environment, run_command, user_error


def test_every_key_has_a_docstring_and_the_page_is_up_to_date() -> None:
    assert undocumented() == []
    page = (ROOT / "docs" / "recipe.md").read_text()
    assert page == markdown(sections()), "run python -m corpus.reference --write docs/recipe.md"


def test_every_kind_has_a_section() -> None:
    paths = {section.path for section in sections()}
    steps = [model.model_fields["step"].default for model in CleaningStep.__origin__.__args__]  # type: ignore[attr-defined]
    assert {f"cleaning: {step}" for step in steps} <= paths
    for kind in ("hub", "urls", "s3", "files", "embedded"):
        assert f"sources.origin: {kind}" in paths
    for kind in ("train", "file", "hub", "llama-models"):
        assert f"tokenizer: {kind}" in paths
    assert {"sources.adapter: field", "sources.adapter: messages", "training.schedule", "mixture"} <= paths


def test_types_defaults_and_bounds_are_told() -> None:
    keys = {(section.path, key.name): key for section in sections() for key in section.keys}
    assert keys["recipe", "seq_len"].type == "whole number >= 8 <= 1,048,576"
    assert keys["recipe", "seq_len"].default == "required"
    assert keys["recipe", "malformed"].type == '"drop" or "fail"'
    assert keys["recipe", "malformed"].default == '"drop"'
    assert keys["training.optimizer", "clip_norm"].type == "number > 0 or null"
    assert keys["recipe", "mixture"].type == "mapping of names to keys below"


def test_a_word_narrows_the_page() -> None:
    assert [section.path for section in about("minhash")] == ["cleaning: minhash"]
    shown = run_command("-m", "corpus.reference", "minhash").stdout
    assert "hashes_per_bucket" in shown and "seq_len" not in shown
    assert "no key has the word 'xyzzy'" in user_error(run_command("-m", "corpus.reference", "xyzzy"))


def test_the_page_is_written(tmp_path: Path) -> None:
    run_command("-m", "corpus.reference", "--write", str(tmp_path / "recipe.md"))
    assert (tmp_path / "recipe.md").read_text() == markdown(sections())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands at the head of recipes/own_data.yaml were run, up to the build."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "recipes").mkdir()
    shutil.copy(ROOT / "recipes" / "own_data.yaml", folder / "recipes")
    head = (folder / "recipes" / "own_data.yaml").read_text().split("\n\n")[0]
    commands = [line[1:].strip() for line in head.splitlines() if re.match(r"#   (mkdir|python)", line)]
    assert len(commands) == 2
    for command in commands:
        line = command.replace("python ", f"{sys.executable} ")
        result = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment(), capture_output=True, text=True, timeout=1200
        )
        assert result.returncode == 0, result.stderr
    return folder


def test_the_annotated_recipe_builds(own: Path) -> None:
    assert (own / "data" / "own_data" / "manifest.json").is_file()
    recipe = load_recipe(own / "recipes" / "own_data.yaml")
    assert recipe.tokens == 409_600 and recipe.shares() == {"notes": 0.8, "docs": 0.2}


def test_stock_streaming_reads_a_stream_as_the_page_says(own: Path) -> None:
    page = (ROOT / "docs" / "streams.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    code = code.replace("data/sample", "data/own_data").replace('["qa"]', '["docs"]')
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=own, env=environment(), capture_output=True, text=True, timeout=1200
    )
    assert result.returncode == 0, result.stderr
    assert re.match(r"\d+ uint16 \(256,\) \(256,\)", result.stdout), result.stdout
