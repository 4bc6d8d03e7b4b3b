"""Small tokenizer.json files of the kinds people have, to be bent into every variant."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

TEXTS = [
    "the rain in brain rainy road window harbour copper seven lamp don't WE'LL 123 45\n\n x = 3;  y",
    "caf\u00e9 na\u00efve \u6570\u5b66 \u2014 \u201cquoted\u201d\n\t rain rain",
] * 3
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@functools.cache
def _byte_level() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(TEXTS, trainer)
    return str(model.to_str())


@functools.cache
def _sentencepiece() -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    model = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))  # noqa: S106
    model.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    spaces = decoders.Replace("\u2581", " ")
    model.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", *BYTES], show_progress=False)
    model.train_from_iterator(TEXTS, trainer)
    data = json.loads(model.to_str())
    data["added_tokens"] = data["added_tokens"][:2]
    return json.dumps(data)


def byte_level() -> dict[str, Any]:
    """A byte-level BPE like GPT-2's: 320 ids, of which <s> is 0."""
    return dict(json.loads(_byte_level()))


def sentencepiece() -> dict[str, Any]:
    """A BPE like Llama 2's: byte fallback, a space put before the text, spaces as U+2581."""
    return dict(json.loads(_sentencepiece()))


def with_token(data: dict[str, Any], content: str, **flags: Any) -> dict[str, Any]:
    """The tokenizer with one more added token; its id follows those there are unless ``flags`` says otherwise."""
    used = [*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])]
    token = {
        "id": data["model"]["vocab"].get(content, max(used) + 1), "content": content,
        "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False,
    }  # fmt: skip
    return data | {"added_tokens": [*data["added_tokens"], token | flags]}


def written(folder: Path, data: dict[str, Any]) -> Path:
    """The tokenizer as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
