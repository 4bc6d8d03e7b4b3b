"""Reading YAML and naming mistakes: the file, the key, the nearest known key."""

from __future__ import annotations

import pickle
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


def test_all_missing_keys_are_named_at_once() -> None:
    recipe = recipe_dict({"a": ["a.jsonl"]})
    del recipe["family"], recipe["training"]["schedule"]
    with pytest.raises(UserError, match=r"r\.yaml: these keys are required: family, training\.schedule\. Add them\.$"):
        parse(Recipe, recipe, "r.yaml")
    recipe["famly"] = "sample"
    with pytest.raises(UserError, match=r"unknown key\. Did you mean 'family'\? Missing: family, training\.schedule"):
        parse(Recipe, recipe, "r.yaml")
    del recipe["famly"]
    recipe["boundary"] = "none"
    with pytest.raises(UserError, match=r"boundary.*these keys are missing|these keys are required: .* \(and 1 more\)"):
        parse(Recipe, recipe, "r.yaml")


def test_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    """A YAML parser gives 5.12e2, which has no sign, as text."""
    recipe = recipe_dict({"a": ["a.jsonl"], "b": ["b.jsonl"]})
    recipe |= {"tokens": "SCALED", "unit_bytes": "1e6", "seed": "2.0"}
    recipe["mixture"]["a"]["weight"] = "80%"
    recipe["mixture"]["b"] |= {"weight": ".2", "max_epochs": "1e1"}
    recipe["training"]["optimizer"] = {"lr": "3e-3", "betas": ["9e-1", "95%"]}
    for text, value in (("2.56e3", 2560), ("128k", 128_000), ("2T", 2 * 10**12), ("5_120", 5120), (2.56e3, 2560)):
        read = parse(Recipe, {**recipe, "tokens": text}, "r.yaml")
        assert read.tokens == value
    assert (read.unit_bytes, read.seed, read.mixture["b"].max_epochs) == (10**6, 2, 10.0)
    assert [entry.weight for entry in read.mixture.values()] == [0.8, 0.2]
    assert (read.training.optimizer.lr, list(read.training.optimizer.betas)) == (0.003, [0.9, 0.95])
    for bad in ("1.5e0", "4 kilo", "80%", 1.5, "1e400"):
        with pytest.raises(UserError, match="key 'tokens'"):
            parse(Recipe, {**recipe, "tokens": bad}, "r.yaml")


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
    error = pickle.loads(pickle.dumps(UserError("what", where="here", fix="Do this.")))  # noqa: S301
    assert (error.what, error.where, error.fix, str(error)) == ("what", "here", "Do this.", "here: what. Do this.")


def test_what_is_true_of_many_things_is_told_one_a_line() -> None:
    error = UserError("2 sources cannot be read", fix="Log in.", details=["a: denied", "b: no\nsuch repository"])
    assert error.lines() == ["2 sources cannot be read. Log in.", "  a: denied", "  b: no such repository"]
    assert error.one_line() == "2 sources cannot be read. Log in. a: denied; b: no such repository"
    assert pickle.loads(pickle.dumps(error)).lines() == error.lines()  # noqa: S301
