"""The tokenizer files of an exported folder: text is encoded as the documents of the training data were."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from corpus.base.files import sha256_file
from corpus.records.manifest import Manifest
from training.model.shapes import ModelConfig

PADS = ("<|finetune_right_pad_id|>", "<|finetune_right_pad|>", "<|pad|>", "<pad>", "[PAD]")
"""Spellings of tokens made for padding: Llama 3's, Llama 4's, and the usual ones."""


@dataclass(frozen=True)
class Marks:
    """The special ids of an exported model, as the boundary of its training data gives them."""

    first: int | None
    """Id that stood before the text of every document and goes before every text; None where documents had none."""
    bos: int
    """Id that a document follows: its BOS, or the EOS of the one before."""
    eos: int
    """The tokenizer's end of text, or its BOS where it has no other; data with boundary "bos" never shows it."""
    stops: list[int]
    """Ids that end a generated text, `eos` first: with boundary "bos" a text ends where the next one's BOS stands."""


def marks_of(manifest: Manifest) -> Marks:
    """The marks of a model trained on `manifest`'s data."""
    bos, eos = manifest.tokenizer.bos_id, manifest.tokenizer.eos_id
    first = bos if manifest.boundary in ("bos", "both") else None
    start, end = (eos if first is None else first), (bos if eos is None else eos)
    assert start is not None and end is not None, "the build checks that a boundary has its ids"
    return Marks(first, start, end, [end, *(i for i in (bos,) if i is not None and i != end)])


def check_tokenizer(tokenizer_json: Path, manifest: Manifest) -> None:
    """Raise UserError when a file that is there is not the tokenizer of `manifest`'s data."""
    if tokenizer_json.is_file() and sha256_file(tokenizer_json) != manifest.tokenizer.sha256:
        raise UserError(
            f"is not the tokenizer '{manifest.tokenizer.name}' that {manifest.recipe} was built with",
            where=str(tokenizer_json),
            fix="Copy that build's tokenizer.json here.",
        )


def tokenizer_files(
    tokenizer_json: Path, cfg: ModelConfig, marks: Marks | None, context: int
) -> tuple[dict[str, dict[str, Any]], int | None]:
    """Contents of tokenizer.json, tokenizer_config.json and special_tokens_map.json, and the id to pad with.

    Without `marks` the tokenizer is left as its file has it. Raises UserError when that is unreadable or has ids that
    the model has not.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
        data = json.loads(tokenizer_json.read_bytes())
    except Exception as error:  # the library raises bare Exception for absent and broken files alike
        raise UserError(f"is not a readable tokenizer.json: {error}", where=str(tokenizer_json)) from None
    vocabulary = tokenizer.get_vocab()
    largest = max(vocabulary.values(), default=-1)
    if largest >= cfg.vocab_size:
        what = f"has ids up to {largest}, more than the {cfg.vocab_size} of size {cfg.name}"
        raise UserError(what, where=str(tokenizer_json), fix="Export with the tokenizer the model was trained with.")
    tokens: dict[str, str] = {}
    if marks:
        tokens = {"bos_token": tokenizer.id_to_token(marks.bos), "eos_token": tokenizer.id_to_token(marks.eos)}
        pads = [token for token in PADS if token in vocabulary]
        tokens["pad_token"] = pads[0] if pads else tokens["eos_token"]
        first = None if marks.first is None else (tokenizer.id_to_token(marks.first), marks.first)
        data["post_processor"] = _post_processor(data.get("post_processor"), first)
        # The corpus was encoded whole and without chance, whatever the file asks for.
        data["truncation"] = data["padding"] = None
        if data["model"].get("dropout"):
            data["model"]["dropout"] = None
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        # The class also returns token_type_ids by default, which generate() refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    files = {"tokenizer.json": data, "tokenizer_config.json": config, "special_tokens_map.json": tokens}
    return files, vocabulary.get(tokens.get("pad_token", ""))


def _post_processor(old: dict[str, Any] | None, first: tuple[str, int] | None) -> dict[str, Any] | None:
    """What follows encoding: `first` before each text and nothing else, as Llama 3's own file has it.

    Of `old` only what sets offsets stays; its special tokens are not those of the training data.
    """
    parts = [] if old is None else old["processors"] if old["type"] == "Sequence" else [old]
    parts = [part for part in parts if part["type"] == "ByteLevel"]
    if first:
        token, number = first
        texts = [
            [{"SpecialToken": {"id": token, "type_id": place}}, {"Sequence": {"id": name, "type_id": place}}]
            for place, name in enumerate("AB")
        ]
        special = {token: {"id": token, "ids": [number], "tokens": [token]}}
        parts.append(
            {"type": "TemplateProcessing", "single": texts[0], "pair": texts[0] + texts[1], "special_tokens": special}
        )
    return {"type": "Sequence", "processors": parts} if len(parts) > 1 else next(iter(parts), None)
