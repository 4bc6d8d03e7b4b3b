"""The tokeniser seam: two engines, one result; text is never control."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from corpus.base.errors import UserError
from corpus.tokenization.engine import FastEngine, ReferenceEngine, compare
from corpus.tokenization.plain import special_ids
from corpus.tokenization.probes import TRICKY
from corpus.tokenization.specs import TrainTokenizer
from corpus.tokenization.trained import train_bpe
from tests.conftest import documents


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = (d["text"] for d in documents(400, seed=5))
    path = tmp_path_factory.mktemp("tok") / "tokenizer.json"
    path.write_text(train_bpe(TrainTokenizer(vocab_size=700), texts), encoding="utf-8")
    return path


def test_training_is_deterministic(tokenizer_json: Path) -> None:
    texts = (d["text"] for d in documents(400, seed=5))
    assert train_bpe(TrainTokenizer(vocab_size=700), texts) == tokenizer_json.read_text(encoding="utf-8")


def test_engines_agree_on_adversarial_text(tokenizer_json: Path) -> None:
    text = tokenizer_json.read_text(encoding="utf-8")
    rng = random.Random(0)
    noise = ["".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(160, 0x2FFF), 0x1F600, 10, 9]))
                     for _ in range(rng.randrange(200))) for _ in range(300)]  # fmt: skip
    texts = TRICKY + noise
    compare(FastEngine(text), ReferenceEngine(text), texts, [str(n) for n in range(len(texts))])


@pytest.mark.parametrize("kind", [FastEngine, ReferenceEngine])
def test_spelled_special_tokens_stay_text(tokenizer_json: Path, kind: type) -> None:
    text = tokenizer_json.read_text(encoding="utf-8")
    specials = special_ids(text)
    assert specials == [0, 1]
    spelled = [f"x {token['content']} y{token['content']}" for token in json.loads(text)["added_tokens"]]
    ids, lengths = kind(text).encode_batch(spelled)
    assert len(lengths) == len(spelled) == 2 and ids.size
    assert not np.isin(ids, specials).any()


def test_the_first_different_document_is_named(tokenizer_json: Path) -> None:
    class Wrong(ReferenceEngine):
        def encode_batch(self, texts):  # type: ignore[no-untyped-def]
            ids, lengths = super().encode_batch(texts)
            ids[lengths[0]] += 1  # the second document's first id
            return ids, lengths

    text = tokenizer_json.read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"^doc-b: .*encode this document differently"):
        compare(Wrong(text), ReferenceEngine(text), ["one", "two", "three"], ["doc-a", "doc-b", "doc-c"])


def test_text_around_which_the_engines_differ_goes_to_the_reference(tokenizer_json: Path) -> None:
    text = tokenizer_json.read_text(encoding="utf-8")
    seen: list[str] = []

    class Watched(ReferenceEngine):
        def encode_batch(self, texts):  # type: ignore[no-untyped-def]
            seen.extend(texts)
            return super().encode_batch(texts)

    fast = FastEngine(text, odd="\U00011de0q", reference=lambda: Watched(text))
    texts = ["plain q", "é q \U00011de0", "", "naïve", "\U00011de0"]
    compare(fast, ReferenceEngine(text), texts, [str(n) for n in range(len(texts))])
    assert seen == ["é q \U00011de0", "\U00011de0"]
