"""The tokeniser seam: two engines, one result; text is never control."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from corpus.base.errors import UserError
from corpus.tokenization import engine as seam
from corpus.tokenization.engine import TRICKY, FastEngine, ReferenceEngine, choose_engine, compare, special_ids
from corpus.tokenization.resolve import _train_bpe
from corpus.tokenization.specs import TrainTokenizer
from tests.conftest import documents


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = (d["text"] for d in documents(400, seed=5))
    path = tmp_path_factory.mktemp("tok") / "tokenizer.json"
    path.write_text(_train_bpe(TrainTokenizer(vocab_size=700), texts), encoding="utf-8")
    return path


def test_training_is_deterministic(tokenizer_json: Path) -> None:
    texts = (d["text"] for d in documents(400, seed=5))
    assert _train_bpe(TrainTokenizer(vocab_size=700), texts) == tokenizer_json.read_text(encoding="utf-8")


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


def test_the_fast_engine_is_the_default(tokenizer_json: Path) -> None:
    assert choose_engine(tokenizer_json, None) == ("gigatoken", None)
    assert choose_engine(tokenizer_json, "tokenizers") == ("tokenizers", None)


def test_an_unsupported_tokenizer_falls_back_with_a_note_and_refuses_when_forced(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))  # noqa: S106
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    path.write_text(model.to_str())
    name, note = choose_engine(path, None)
    assert name == "tokenizers" and note and "gigatoken" in note
    with pytest.raises(UserError, match="--engine tokenizers"):
        choose_engine(path, "gigatoken")


def test_the_first_different_document_is_named(tokenizer_json: Path) -> None:
    class Wrong(ReferenceEngine):
        def encode_batch(self, texts):  # type: ignore[no-untyped-def]
            ids, lengths = super().encode_batch(texts)
            ids[lengths[0]] += 1  # the second document's first id
            return ids, lengths

    text = tokenizer_json.read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"^doc-b: .*encode this document differently"):
        compare(Wrong(text), ReferenceEngine(text), ["one", "two", "three"], ["doc-a", "doc-b", "doc-c"])


def test_added_tokens_that_are_vocabulary_survive() -> None:
    data = {
        "added_tokens": [{"id": 5, "content": "  ", "special": False}, {"id": 6, "content": "<s>", "special": True}]
    }
    kept = json.loads(seam.without_special_tokens(json.dumps(data)))["added_tokens"]
    assert [token["id"] for token in kept] == [5]


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


def test_the_finding_is_kept_beside_the_tokenizer(tokenizer_json: Path) -> None:
    found = seam.check_engine(tokenizer_json)
    assert found.refusal is None and len(found.odd) < 100
    kept = json.loads(tokenizer_json.with_name(seam.CHECK_FILE).read_text())
    assert set(kept["versions"]) == {"gigatoken", "tokenizers"}
    kept["refusal"] = "kept"
    tokenizer_json.with_name(seam.CHECK_FILE).write_text(json.dumps(kept))
    assert seam.check_engine(tokenizer_json).refusal == "kept"
    tokenizer_json.with_name(seam.CHECK_FILE).unlink()


def test_a_tokenizer_that_makes_control_of_text_is_refused(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    pieces = [("<unk>", 0.0), ("</s>", -1.0), ("a", -2.0), (" ", -2.0), ("b", -2.0)]
    model = Tokenizer(models.Unigram(pieces, unk_id=0))
    model.add_special_tokens([AddedToken("</s>", special=True)])
    path = tmp_path / "tokenizer.json"
    path.write_text(model.to_str())
    with pytest.raises(UserError, match="to a special token"):
        choose_engine(path, "tokenizers")
