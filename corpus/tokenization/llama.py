"""The Llama 3 and Llama 4 tokenizers, converted from the `llama-models` package to Hugging Face `tokenizers` form.

The package ships tiktoken files: one token's bytes (base64) and its rank per line. A byte-level BPE needs the
merges spelled out as well: they follow from the ranks. Split expressions, special tokens and their order are those of
the package's own tokenizer classes.
"""

from __future__ import annotations

import base64
import binascii
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from corpus.base.errors import UserError

LlamaName = Literal["llama3", "llama4"]
PACKAGE = "llama-models"

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_LLAMA4_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


def _reserved(prefix: str, first: int, end: int) -> list[str]:
    return [f"{prefix}reserved_special_token_{number}" for number in range(first, end)]


_LLAMA3_SPECIAL = [
    "begin_of_text", "end_of_text", *_reserved("", 0, 2), "finetune_right_pad_id", "step_id", "start_header_id",
    "end_header_id", "eom_id", "eot_id", "python_tag", "image",
]  # fmt: skip
_LLAMA4_SPECIAL = [
    "begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix",
    "header_start", "header_end", "eom", "eot", "step", *_reserved("text_post_train_", 0, 6),
    "python_start", "python_end", "finetune_right_pad", *_reserved("text_post_train_", 8, 69),
    "image_start", "image_end", *_reserved("vision_", 0, 2), "tile_x_separator", "tile_y_separator",
    *_reserved("vision_", 2, 6), "image", *_reserved("vision_", 6, 7), "patch", *_reserved("vision_", 7, 1048),
    *_reserved("reasoning_", 0, 8), "reasoning_thinking_start", "reasoning_thinking_end",
]  # fmt: skip


class _Kind(NamedTuple):
    file: str
    split: str
    special: list[str]
    first_reserved: int
    """Number of the first of the reserved tokens that fill the special tokens up."""
    special_count: int
    vocab_size: int


_KINDS: dict[LlamaName, _Kind] = {
    "llama3": _Kind("llama_models/llama3/tokenizer.model", _LLAMA3_SPLIT, _LLAMA3_SPECIAL, 2, 256, 128_256),
    "llama4": _Kind("llama_models/llama4/tokenizer.model", _LLAMA4_SPLIT, _LLAMA4_SPECIAL, 0, 2048, 202_048),
}


@dataclass(frozen=True)
class LlamaFacts:
    """What a recipe needs to know of a converted tokenizer."""

    bos_token: str
    bos_id: int
    eos_token: str
    eos_id: int
    vocab_size: int
    package_version: str
    """Version of `llama-models` the ranks were taken from."""


def find_llama_model(name: LlamaName) -> tuple[Path, str]:
    """Path of the tiktoken file inside the installed package (which is not imported), and the package's version.

    Raises UserError naming the command that installs it.
    """
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"the tokenizer '{name}' is taken from the package {PACKAGE}, which is not installed",
            fix=f"Run: pip install {PACKAGE} (its tokenizer files are under Meta's licence).",
        ) from None
    path = Path(str(package.locate_file(_KINDS[name].file)))
    if not path.is_file():
        raise UserError(
            f"{PACKAGE} {package.version} does not hold {_KINDS[name].file}",
            fix=f"Run: pip install --upgrade {PACKAGE}.",
        )
    return path, package.version


def read_llama(name: LlamaName) -> tuple[str, LlamaFacts]:
    """The tokenizer as the text of a tokenizer.json, and its facts.

    Ids are those of the package's own tokenizer; no post-processor adds any. Special tokens are `added_tokens`.
    Raises UserError when the package is missing or its file is not what it should be.
    """
    path, version = find_llama_model(name)
    kind = _KINDS[name]
    ranks = _read_ranks(path, kind.vocab_size - kind.special_count)
    special = special_tokens(name)
    text = json.dumps(_tokenizer(ranks, special, kind.split), ensure_ascii=False)
    return text, LlamaFacts(special[0], len(ranks), special[1], len(ranks) + 1, kind.vocab_size, version)


def special_tokens(name: LlamaName) -> list[str]:
    """Spellings of the special tokens, in the order of their ids, which follow those of ordinary tokens."""
    kind = _KINDS[name]
    fill = kind.special_count - len(kind.special)
    names = kind.special + _reserved("", kind.first_reserved, kind.first_reserved + fill)
    return [f"<|{token}|>" for token in names]


def _read_ranks(path: Path, expected: int) -> dict[bytes, int]:
    """Token bytes -> rank (its id), in the order of rank."""
    ranks: dict[bytes, int] = {}
    try:
        for line in path.read_bytes().splitlines():
            token, _, rank = line.partition(b" ")
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (OSError, ValueError, binascii.Error) as error:
        raise UserError(f"cannot be read: {error}", where=str(path), fix=f"Install {PACKAGE} again.") from None
    if list(ranks.values()) != list(range(expected)):
        raise UserError(
            f"does not hold the ranks 0 to {expected - 1} in order", where=str(path), fix=f"Install {PACKAGE} again."
        )
    return ranks


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of tokens whose bytes together are a token, in the order of that token's rank.

    tiktoken merges whatever two neighbours make the token of the best rank, so all ways to cut a token count,
    not only the one it was first made by.
    """
    for token in ranks:
        cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        pairs = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        yield from sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _byte_letters() -> list[str]:
    """The letter byte-level BPE writes for each byte: itself when printable in Latin-1, else one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    letters.update((byte, chr(0x100 + number)) for number, byte in enumerate(others))
    return [letters[byte] for byte in range(256)]


def _tokenizer(ranks: dict[bytes, int], special: list[str], split: str) -> dict[str, Any]:
    letters = _byte_letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, **flags} for number, token in enumerate(special, start=len(ranks))
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # A word that is a token is that token, as in tiktoken, even where no chain of merges leads to it.
            "ignore_merges": True,
            "vocab": {spelled(token): rank for token, rank in ranks.items()},
            "merges": [[spelled(left), spelled(right)] for left, right in _merges(ranks)],
        },
    }
