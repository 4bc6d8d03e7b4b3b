"""A tokenizer.json as documents are encoded with it: no token is special, nothing is random, nothing is cut or filled.

Whatever reads a tokenizer.json to encode text of a corpus goes through `plain_tokenizer`.
"""

from __future__ import annotations

import functools
import secrets
from typing import Any

import orjson

from corpus.base.collector import parse_large

_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@functools.lru_cache(maxsize=1)  # both engines ask for the same one
def plain_tokenizer(tokenizer_json: str) -> str:
    """The tokenizer as JSON without special added tokens, post-processing, truncation, padding and dropout.

    All other added tokens keep their ids.
    """
    data = parse_large(tokenizer_json)
    data["added_tokens"] = _without_special(data)
    data["post_processor"] = data["truncation"] = data["padding"] = None
    if isinstance(data.get("model"), dict) and data["model"].get("dropout") is not None:
        data["model"]["dropout"] = None
    return orjson.dumps(data).decode()


def switched_off(tokenizer_json: str) -> list[str]:
    """What `plain_tokenizer` takes away that would change the ids of a text, in words."""
    data = parse_large(tokenizer_json)
    off = []
    if dropout := (data.get("model") or {}).get("dropout"):
        off.append(f"BPE dropout of {dropout:g}, which makes ids random")
    if truncation := data.get("truncation"):
        off.append(f"truncation to {truncation.get('max_length')} ids, which loses text")
    if data.get("padding"):
        off.append("padding, which adds ids that are no text")
    return off


def added_tokens(tokenizer_json: str, *, special: bool | None = None) -> list[dict[str, Any]]:
    """The added tokens; with ``special`` those alone that are or are not."""
    added = parse_large(tokenizer_json).get("added_tokens") or []
    return [token for token in added if special is None or bool(token.get("special")) is special]


def special_ids(tokenizer_json: str) -> list[int]:
    """Ids that text must never produce."""
    return sorted(int(token["id"]) for token in added_tokens(tokenizer_json, special=True))


def _without_special(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that are not special, with something in the place of special ones whose ids they stand on.

    `tokenizers` does not read the ids of added tokens that are not in the model's vocabulary: it numbers them on from
    there. What holds a special token's number is spelled with a secret of this process, so that no text matches it.
    """
    added = data.get("added_tokens") or []
    vocabulary = (data.get("model") or {}).get("vocab") or {}
    known = set(vocabulary) if isinstance(vocabulary, dict) else {piece[0] for piece in vocabulary}
    numbered = [token for token in added if token["content"] not in known]
    last = max((int(token["id"]) for token in numbered if not token.get("special")), default=-1)
    kept, secret = [], secrets.token_hex(16)
    for token in added:
        if not token.get("special"):
            kept.append(token)
        elif token["content"] not in known and int(token["id"]) < last:
            kept.append({"id": token["id"], "content": f"{secret} {token['id']}", **_FLAGS})
    return kept
