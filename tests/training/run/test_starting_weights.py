"""What --load takes, what it refuses, and that a model's arithmetic does not change unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from corpus.base.errors import UserError
from tests.training.trainer_kit import VOCAB, build, recipe_dict
from training.model.decoder import MobileLM
from training.model.saved import save_model
from training.model.shapes import SIZES, ModelConfig
from training.run import checkpoint
from training.run.options import parse_args
from training.run.phases import Phase, resolve
from training.run.starting_weights import check_weights, find_weights

TINY = SIZES["tiny"].with_vocab(VOCAB)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(folder)
    stretched = recipe_dict("stretched", 24, model={"rope_theta": 80_000.0})
    build(folder, "stretched", recipe=stretched)
    return folder


def phase(built: Path, *arguments: str, recipe: str = "mix", size: str = "tiny") -> Phase:
    path = str(built / "recipes" / f"{recipe}.yaml")
    return resolve(parse_args(["--size", size, "--recipe", path, "--data", str(built / "data"), *arguments]))[0]


def saved(run: Path, cfg: ModelConfig = TINY, step: int = 5) -> Path:
    """A checkpoint of a run."""
    facts = {
        "phase": 0, "recipe": "mix", "step": step, "tokens": 0, "finished": False, "model": dataclasses.asdict(cfg),
        "data": {}, "world_size": 1, "microbatch": 1,
    }  # fmt: skip
    return checkpoint.write(run / "checkpoints", facts, MobileLM(cfg).state_dict(), {})


def differences(load: Path, into: Phase, allow: bool = False) -> dict[str, list[Any]]:
    return check_weights(find_weights(load), into, load, allow=allow)


def imported(folder: Path, cfg: ModelConfig = TINY) -> Path:
    folder.mkdir()
    save_model(folder, MobileLM(cfg).state_dict(), cfg)
    return folder


def test_a_run_a_checkpoint_an_imported_folder_and_a_file_are_taken(built: Path, tmp_path: Path) -> None:
    here = phase(built)
    path, folder = saved(tmp_path / "run"), imported(tmp_path / "in")
    shutil.copy(folder / "weights.safetensors", tmp_path / "bare.safetensors")
    for load, found, optimizer in (
        (tmp_path / "run", path, True),
        (path, path, True),
        (path / "model.safetensors", path / "model.safetensors", False),
        (folder, folder / "weights.safetensors", False),
        (folder / "weights.safetensors", folder / "weights.safetensors", False),
        (tmp_path / "bare.safetensors", tmp_path / "bare.safetensors", False),
    ):
        weights = find_weights(load)
        assert (weights.path, weights.optimizer) == (found, optimizer)
        assert weights.model == (None if load.name == "bare.safetensors" else TINY)
        assert differences(load, here) == {}
        assert set(checkpoint.read_weights(weights.path)) == set(MobileLM(TINY).state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such run, folder or file"),
        (lambda path: path.mkdir(), "no checkpoint here"),
        (lambda path: path.write_bytes(b"pickle"), r"is no \.safetensors file"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{}")), "python -m training.import_hf .*thing"),
        (lambda path: (path.mkdir(), (path / "model.json").write_text("{}")), "is missing.*Import again"),
        (
            lambda path: (imported(path), (path / "model.json").write_text("{}")),
            "was not written by this version of training.import_hf",
        ),
        (lambda path: (saved(path) / "model.safetensors").write_bytes(b""), "does not match its recorded size"),
    ],
)
def test_what_holds_no_weights_is_refused(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "thing")
    with pytest.raises(UserError) as caught:
        find_weights(tmp_path / "thing")
    assert re.search(message, caught.value.one_line())


@pytest.mark.parametrize("where", ["run", "in"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_theta": 77.0}, "rope_theta is 77.0, mix has 10000.0"),
        ({"qk_norm": False}, "qk_norm is False, mix has True"),
        ({"rope_layout": "half"}, "rope_layout is half, mix has interleaved"),
        ({"norm_eps": 1e-6}, "norm_eps is 1e-06, mix has 1e-05"),
        ({"layer_repeat": 2}, "layer_repeat is 2, mix has 1"),
        # The same tensors, cut into heads otherwise.
        ({"heads": 8, "kv_heads": 4, "head_dim": 16}, "heads is 8, mix has 4; kv_heads is 4, mix has 2; head_dim"),
        ({"sliding_window": 16, "global_layers": (0, 3)}, "sliding_window is 16, mix has None; global_layers"),
    ],
)  # fmt: skip
def test_weights_that_would_compute_something_else_need_a_flag(
    where: str, change: dict[str, Any], named: str, built: Path, tmp_path: Path
) -> None:
    cfg = dataclasses.replace(TINY, **change)
    saved(tmp_path / "run", cfg)
    imported(tmp_path / "in", cfg)
    with pytest.raises(UserError) as caught:
        differences(tmp_path / where, phase(built))
    assert named in caught.value.one_line() and "--allow-changed-model" in caught.value.one_line()
    assert set(differences(tmp_path / where, phase(built), allow=True)) == set(change)


def test_the_refusal_says_how_to_keep_the_model_and_that_works(built: Path, tmp_path: Path) -> None:
    saved(tmp_path / "run", dataclasses.replace(TINY, rope_theta=77.0, qk_norm=False))
    with pytest.raises(UserError) as caught:
        differences(tmp_path / "run", phase(built))
    keep = ["--set", "model.rope_theta=77.0", "--set", "model.qk_norm=false"]
    assert " ".join(keep) in caught.value.one_line()
    assert differences(tmp_path / "run", phase(built, *keep)) == {}
    # And the other way: an override that the weights know nothing of.
    saved(tmp_path / "plain")
    with pytest.raises(UserError, match=r"rope_theta is 10000\.0, mix has 77\.0; qk_norm is True, mix has False"):
        differences(tmp_path / "plain", phase(built, *keep))


def test_what_the_recipe_itself_changes_is_meant(built: Path, tmp_path: Path) -> None:
    saved(tmp_path / "run")
    assert differences(tmp_path / "run", phase(built, recipe="stretched")) == {"rope_theta": [10_000.0, 80_000.0]}
    with pytest.raises(UserError, match=r"rope_theta is 10000\.0, stretched has 77\.0"):
        differences(tmp_path / "run", phase(built, "--set", "model.rope_theta=77", recipe="stretched"))


@pytest.mark.parametrize("where", ["run", "in", "bare.safetensors"])
def test_tensors_of_another_shape_are_refused_with_or_without_the_flag(where: str, built: Path, tmp_path: Path) -> None:
    cfg = SIZES["140m"].with_vocab(VOCAB)
    cfg = dataclasses.replace(cfg, layers=2)
    saved(tmp_path / "run", cfg)
    imported(tmp_path / "in", cfg)
    save_file(MobileLM(cfg).state_dict(), tmp_path / "bare.safetensors")
    for allow in (False, True):
        with pytest.raises(UserError) as caught:
            differences(tmp_path / where, phase(built), allow)
        text = caught.value.one_line()
        if where == "bare.safetensors":
            assert "does not fit size tiny: embed_tokens.weight is [512, 576], the size has [512, 128]" in text
        else:
            assert "layers is 2, mix has 4" in text and "dim is 576, mix has 128" in text and "--size 140m" in text
            assert "--allow-changed-model" not in text
    other = TINY.with_vocab(300)
    saved(tmp_path / "other", other)
    with pytest.raises(UserError, match="vocab_size is 300, mix has 512"):
        differences(tmp_path / "other", phase(built))


def test_weights_of_another_tokenizer_are_refused(built: Path, tmp_path: Path) -> None:
    saved(tmp_path / "run")
    tokenizer = tmp_path / "run" / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir()
    tokenizer.write_text("{}")
    theirs = hashlib.sha256(b"{}").hexdigest()[:12]
    with pytest.raises(UserError, match=f"tokenizer is {theirs}, mix has 000000000000"):
        differences(tmp_path / "run", phase(built))
    assert differences(tmp_path / "run", phase(built), allow=True) == {"tokenizer": [theirs, "0" * 12]}


def test_a_file_of_other_tensors_is_refused(built: Path, tmp_path: Path) -> None:
    save_file({"model.embed_tokens.weight": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"embed_tokens\.weight is missing"):
        differences(tmp_path / "x.safetensors", phase(built))
    (tmp_path / "y.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="is not a complete safetensors file"):
        differences(tmp_path / "y.safetensors", phase(built))
