"""A tokenizer trained on a recipe's sources: never on nothing, and never another one without a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from corpus.acquire import AcquireConfig, list_files
from corpus.recipe.model import load_recipe
from corpus.records.manifest import load_manifest
from corpus.tokenization.specs import TrainTokenizer
from corpus.tokenization.trained import Inputs, trained
from tests.conftest import documents, run_command, user_error, write_jsonl


def build(recipe: Path, out: Path, *options: str) -> tuple[int, str]:
    """Exit code and news of a build."""
    result = run_command("-m", "corpus.build", str(recipe), "--out", str(out), "--workers", "1", *options)
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "read 0 records, kept 0"),
        (b'{"text": 1\n7\n{"text": 2\n', "read 3 records, kept 0: invalid_json 2, not_an_object 1; first b.jsonl:0"),
        (b'{"body": "x"}\n{"text": ""}\n', "first b.jsonl:0"),
        (b'{"text": ""}\n{"text": ""}\n', "read 2 records, kept 0: empty 2; first b.jsonl:0"),
    ],
)
def test_a_source_without_text_is_told_before_training(
    make_recipe: Callable[..., Path], tmp_path: Path, content: bytes, told: str
) -> None:
    recipe = make_recipe()
    (tmp_path / "b.jsonl").write_bytes(content)
    result = run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--workers", "1")
    error = user_error(result)
    assert "mixture entry 'b'" in error and "no text to train the tokenizer on" in error and told in error
    assert not list((tmp_path / "data" / "tokenizers").glob("bpe*"))


def test_another_tokenizer_is_announced_and_the_last_one_can_be_kept(
    make_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, out = make_recipe(), tmp_path / "data"
    code, news = build(recipe, out)
    assert code == 0 and "note: the tokenizer" not in news
    first = load_manifest(out / "small")
    code, news = build(recipe, out)
    assert code == 0 and "note: the tokenizer" not in news and "training" not in news

    write_jsonl(tmp_path / "b.jsonl", documents(70, seed=3))
    code, news = build(recipe, out, "--dry-run")
    lines = news.splitlines()
    note = next(line for line in lines if "not the one this recipe had here last" in line)
    assert "source 'b' changed" in note and "source 'a'" not in note and "all 2 streams" in note
    assert lines.index(note) < next(place for place, line in enumerate(lines) if line.startswith("training"))
    assert first.tokenizer.path in note and "kind: file" in note

    frozen = yaml.safe_load(note[note.index("{kind") : note.rindex("}") + 1])
    changed = yaml.safe_load(recipe.read_text()) | {"tokenizer": frozen}
    recipe.write_text(yaml.safe_dump(changed))
    code, news = build(recipe, out)
    assert code == 0, news
    assert "not the one" not in news
    again = load_manifest(out / "small")
    assert again.tokenizer.sha256 == first.tokenizer.sha256
    assert again.sources["a"].stream == first.sources["a"].stream, "only the source that changed is made anew"
    assert again.sources["b"].stream != first.sources["b"].stream


def test_the_note_says_what_changed(make_recipe: Callable[..., Path], tmp_path: Path) -> None:
    config, data, news = AcquireConfig(tmp_path / "cache", base_dir=tmp_path), tmp_path / "data", list[str]()
    recipe = load_recipe(make_recipe())
    found = {name: (source, list_files(source, config)) for name, source in recipe.sources.items()}

    def told(spec: TrainTokenizer, inputs: Inputs) -> list[str]:
        news.clear()
        trained(spec, "small", inputs, config, data, news.append)
        return [line for line in news if line.startswith("note:")]

    spec = TrainTokenizer(vocab_size=600)
    assert told(spec, found) == []
    kept = json.loads((data / "tokenizers" / "trained" / "small.json").read_text())
    assert set(kept) == {"tokenizer", "settings", "inputs"} and str(tmp_path) not in json.dumps(kept)
    for other, inputs, why in (
        (TrainTokenizer(vocab_size=610), found, "(vocab_size was 600)"),
        (spec, {"a": found["a"]}, "(source 'b' is gone, vocab_size was 610)"),
        (spec, found, "(source 'b' is new)"),
        (spec, dict(reversed(found.items())), "(the order of its sources changed)"),
    ):
        assert [why in note for note in told(other, inputs)] == [True], why
        assert told(other, inputs) == []
