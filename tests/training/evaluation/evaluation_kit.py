"""What the tests of evaluation share: texts, a tokenizer of them, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from tests.training.trainer_kit import VOCAB
from training.evaluate import main

ROWS = ["", " = Heading = \n", "", " The quick brown fox jumps over the lazy dog . \n", " It said : hello world ! \n"]


TEXT = "the quick brown fox jumps over a lazy dog while it says hello world and the answer is 42 "


def make_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        [TEXT, *ROWS],
        trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=["<|bos|>", "<|eos|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    path.parent.mkdir(parents=True)
    tokenizer.save(str(path))


def evaluate(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> dict[str, Any]:
    run = folder / "runs" / "run"
    main([str(run), "--data", str(folder / "data"), "--json", *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


def ignore(_: int) -> None:
    """Nobody is told of progress."""
