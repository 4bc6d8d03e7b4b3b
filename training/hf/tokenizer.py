"""The tokenizer files of an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from training.model.shapes import ModelConfig


def tokenizer_files(
    tokenizer_json: Path, cfg: ModelConfig, bos_id: int | None, eos_id: int | None, context: int
) -> dict[str, dict[str, Any]]:
    """tokenizer_config.json and special_tokens_map.json for a tokenizer.json."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises bare Exception for absent and broken files alike
        raise UserError(f"is not a readable tokenizer.json: {error}", where=str(tokenizer_json)) from None
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= cfg.vocab_size:
        what = f"has ids up to {largest}, more than the {cfg.vocab_size} of size {cfg.name}"
        raise UserError(what, where=str(tokenizer_json), fix="Export with the tokenizer the model was trained with.")
    ids = {"bos_token": bos_id, "eos_token": eos_id}
    tokens = {key: tokenizer.id_to_token(number) for key, number in ids.items() if number is not None}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    return {"tokenizer_config.json": config, "special_tokens_map.json": tokens}
