"""A tokenizer as text is encoded with it: what is taken out of its file, and what stays."""

from __future__ import annotations

import json

from corpus.tokenization.plain import plain_tokenizer, special_ids, switched_off
from tests.corpus.tokenization.variants import byte_level, with_token


def test_added_tokens_that_are_vocabulary_survive() -> None:
    data = {
        "added_tokens": [{"id": 5, "content": "  ", "special": False}, {"id": 6, "content": "<s>", "special": True}]
    }
    kept = json.loads(plain_tokenizer(json.dumps(data)))["added_tokens"]
    assert [token["id"] for token in kept] == [5]


def test_what_holds_a_number_cannot_be_spelled() -> None:
    data = json.dumps(with_token(with_token(byte_level(), "<|im_end|>", special=True), "<tool_call>"))
    first = json.loads(plain_tokenizer(data))["added_tokens"]
    plain_tokenizer.cache_clear()
    second = json.loads(plain_tokenizer(data))["added_tokens"]
    assert [token["id"] for token in first] == [token["id"] for token in second] == [320, 321]
    assert first[0]["content"] != second[0]["content"] and first[1] == second[1]
    assert special_ids(data) == [0, 320]


def test_a_tokenizer_of_the_usual_kind_has_nothing_to_switch_off() -> None:
    assert switched_off(json.dumps(byte_level())) == []
    assert switched_off(json.dumps(byte_level() | {"model": byte_level()["model"] | {"dropout": 0.0}})) == []
