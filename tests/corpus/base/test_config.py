"""Reading YAML and naming mistakes: the file, the key, the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.base.config import parse, read_yaml
from corpus.base.errors import UserError, nearest
from corpus.recipe.model import Recipe
from tests.conftest import recipe_dict


@pytest.mark.parametrize(
    ("path", "key", "value", "said"),
    [
        (["training", "optimizer"], "lrr", 1, "key 'training.optimizer.lrr': unknown key. Did you mean 'lr'?"),
        (["mixture", "a"], "wieght", 1, "key 'mixture.a.wieght': unknown key. Did you mean 'weight'?"),
        (["tokenizer"], "vocabsize", 1, "Did you mean 'vocab_size'?"),
        ([], "seq_length", 1, "Did you mean 'seq_len'?"),
        (["training", "schedule"], "kind", "linaer", "training.schedule.kind"),
        ([], "tokens", -5, "key 'tokens'"),
        ([], "boundary", "none", "key 'boundary'"),
        ([], "name", "../evil", "key 'name'"),
    ],
)
def test_a_mistake_names_its_key(path: list[str], key: str, value: object, said: str) -> None:
    recipe = recipe_dict({"a": ["a.jsonl"]})
    level = recipe
    for part in path:
        level = level[part]
    level[key] = value
    with pytest.raises(UserError) as error:
        parse(Recipe, recipe, "r.yaml")
    assert said in error.value.one_line() and error.value.one_line().startswith("r.yaml")


def test_a_missing_key_is_named() -> None:
    recipe = recipe_dict({"a": ["a.jsonl"]})
    del recipe["training"]["schedule"]
    with pytest.raises(UserError, match=r"training\.schedule.*required"):
        parse(Recipe, recipe, "r.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: 1\na: 2\n", "twice"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("- a\n", "mapping"),
        ("a: [1\n", ":2: not valid YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_yaml(path)
    assert said in error.value.one_line() and "r.yaml" in error.value.one_line()


def test_nearest_lists_what_exists_when_nothing_is_close() -> None:
    assert nearest("zzz", ["alpha", "beta"]) == "Known: alpha, beta."


def test_errors_survive_a_worker_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UserError("what", where="here", fix="Do this.")))  # noqa: S301
    assert (error.what, error.where, error.fix, str(error)) == ("what", "here", "Do this.", "here: what. Do this.")
