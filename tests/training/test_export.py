"""Export of a run that was really trained: the card states what the run did, not what its recipes meant."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from corpus.records.manifest import load_manifest
from tests.training.trainer_kit import VOCAB, Ranks, build
from training import import_hf
from training.export import main
from training.run.folder import load_weights

transformers = pytest.importorskip("transformers")


def give_tokenizer(data: Path, name: str) -> None:
    """Put a tokenizer.json where the manifest of build `name` says that it lies."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    manifest = load_manifest(data / name)
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCAB)}, "w7"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = data / manifest.tokenizer.path / "tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    facts = manifest.tokenizer.model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    manifest.model_copy(update={"tokenizer": facts}).write(data / name)


def test_card_states_what_the_run_did(tmp_path: Path) -> None:
    first, second = build(tmp_path, "first", steps=24), build(tmp_path, "second", steps=48)
    for name in ("first", "second"):
        give_tokenizer(tmp_path / "data", name)
    command = [
        "--size", "tiny", "--phases", f"{first},{second}", "--run-name", "run",
        "--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs"), "--workers", "0",
        # Each phase becomes 16 steps of 4: not the 24 and 48 of 8 that the recipes and manifests speak of.
        "--set", "tokens=2048", "--set", "global_batch=4", "--set", "optimizer.lr=1e-3",
    ]  # fmt: skip
    ranks = Ranks([*command, "--until", "20"], 1, tmp_path / "log")
    assert ranks.wait() == 0, ranks.output()
    main([str(tmp_path / "runs" / "run"), "--to", str(tmp_path / "out")])
    card = (tmp_path / "out" / "README.md").read_text()
    # 16 steps and 4 of the second phase's 16.
    assert "run `run`, begun from random weights. 2,560 tokens in all" in card
    assert "| first | 16 | 2,048 | 4 | 32 | 0.001, cosine, 3 warm-up | 17 | none |" in card
    assert "| second | 4 of 16 | 512 | 4 | 32 | 0.001, cosine, 3 warm-up | 17 | none |" in card
    assert "`tokens=2048`, `global_batch=4`, `optimizer.lr=1e-3`" in card and "`second` was stopped before" in card
    # 64 samples of the first phase, 0.7 and 0.3 of them, from 150 and 40; the second stands inside a virtual epoch.
    assert "| 1,440 | 70.31% | 0.30 |" in card and "| 608 | 29.69% | 0.47 |" in card
    assert "| about 368 | 71.88% | 0.08 |" in card
    for number in ("6,144", "12,288", str(tmp_path)):
        assert number not in card

    # A run that starts from another's weights says so.
    ranks = Ranks(
        [
            "--size", "tiny", "--recipe", str(first), "--run-name", "more", *command[6:10], "--workers", "0",
            "--set", "tokens=2048", "--load", str(tmp_path / "runs" / "run"),
        ],
        1, tmp_path / "log2",
    )  # fmt: skip
    assert ranks.wait() == 0, ranks.output()
    main([str(tmp_path / "runs" / "more"), "--to", str(tmp_path / "more")])
    card = (tmp_path / "more" / "README.md").read_text()
    assert "begun from the weights of `run`, whose own training is not listed here" in card
    assert "| first | 8 | 2,048 | 8 |" in card and str(tmp_path) not in card
    config = json.loads((tmp_path / "more" / "config.json").read_text())
    assert config["max_position_embeddings"] == 32

    # And so does one from the export of that, imported again; the weights are the same.
    import_hf.main([str(tmp_path / "more"), "--size", "tiny", "--to", str(tmp_path / "in")])
    ranks = Ranks(
        [
            "--size", "tiny", "--recipe", str(first), "--run-name", "back", *command[6:10], "--workers", "0",
            "--set", "tokens=2048", "--set", "optimizer.lr=1e-12", "--load", str(tmp_path / "in"), "--until", "1",
        ],
        1, tmp_path / "log3",
    )  # fmt: skip
    assert ranks.wait() == 0, ranks.output()
    (old, cfg), (new, same) = (load_weights(tmp_path / "runs" / name) for name in ("more", "back"))
    assert cfg == same and all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)
    start = json.loads((tmp_path / "runs" / "back" / "run.json").read_text())["starts"][0]
    assert start["loaded"] == {"path": str(tmp_path / "in"), "model": "tiny", "changed": {}}
    shutil.rmtree(tmp_path / "data")
    main([str(tmp_path / "runs" / "more"), "--to", str(tmp_path / "again")])  # the run's folder is enough
