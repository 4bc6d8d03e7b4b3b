"""A tokenizer's folder in the data folder: tokenizer.json, and meta.json, whose presence marks it complete."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from corpus.base.files import atomic_write, read_json, sha256_file, write_json
from corpus.records.stream import Tokenizer

FOLDER = "tokenizers"
META_FILE = "meta.json"
NEAR = 5
"""Most names that an error lists."""


def store(
    folder: Path,
    data: Path,
    name: str,
    text: str,
    bos_token: str | None,
    eos_token: str | None,
    *,
    where: str | None = None,
    commit: str | None = None,
) -> Tokenizer:
    """Write tokenizer.json and then meta.json; ``where`` names the file in errors, ``commit`` is for the record.

    Raises UserError when ``text`` is no tokenizer.json or has no such special tokens.
    """
    where = where or name
    try:
        facts = json.loads(text)
        tokens = facts.get("added_tokens") or []
        added = {token["content"]: int(token["id"]) for token in tokens if token.get("special")}
        largest = max([*_model_ids(facts["model"]["vocab"]), *(int(token["id"]) for token in tokens)])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"is not a tokenizer.json ({type(error).__name__}: {error})", where=where) from None
    ids = []
    for token in (bos_token, eos_token):
        if token is not None and token not in added:
            raise UserError(f"'{token}' is no special token of this tokenizer", where=where, fix=_near(token, added))
        ids.append(None if token is None else added[token])
    with atomic_write(folder / "tokenizer.json") as stream:
        stream.write(text.encode())
    tokenizer = Tokenizer(
        name=name,
        sha256=sha256_file(folder / "tokenizer.json"),
        vocab_size=largest + 1,
        bos_id=ids[0],
        eos_id=ids[1],
        path=folder.relative_to(data).as_posix(),
        commit=commit,
    )
    write_json(
        folder / META_FILE,
        {"bos_token": bos_token, "eos_token": eos_token, "tokenizer": tokenizer.model_dump(mode="json")},
    )
    return tokenizer


def is_stored(folder: Path) -> bool:
    """Whether the folder is complete."""
    return (folder / META_FILE).is_file()


def stored(folder: Path) -> Tokenizer:
    """The facts of a complete folder; raises UserError when its tokenizer.json was changed."""
    tokenizer = Tokenizer.model_validate(read_json(folder / META_FILE)["tokenizer"])
    if sha256_file(folder / "tokenizer.json") != tokenizer.sha256:
        raise UserError("tokenizer.json is not the one the build wrote", where=str(folder), fix="Delete the folder.")
    return tokenizer


def _model_ids(vocab: Any) -> Iterator[int]:
    """Ids of a BPE vocabulary (a mapping) or a Unigram one (a list of pairs)."""
    yield from (vocab.values() if isinstance(vocab, dict) else range(len(vocab)))


def _near(token: str, added: Iterable[str]) -> str:
    """The special tokens most like ``token``, of which there may be thousands."""
    names = list(added)
    if not names:
        return "It has no special tokens."
    near = difflib.get_close_matches(token, names, n=NEAR, cutoff=0.6) or names[:NEAR]
    more = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
    return f"It has {', '.join(map(repr, near))}{more}."
