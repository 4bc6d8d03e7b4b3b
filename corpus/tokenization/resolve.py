"""From a recipe's `tokenizer` key to a tokenizer.json in the data folder, with its boundary ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from corpus.acquire import AcquireConfig
from corpus.base.errors import UserError
from corpus.base.files import fingerprint, sha256_file
from corpus.records.stream import Boundary, Tokenizer
from corpus.tokenization.folder import FOLDER, is_stored, store, stored
from corpus.tokenization.hub import hub_tokenizer
from corpus.tokenization.specs import (
    FileTokenizer,
    HubTokenizer,
    LlamaModelsTokenizer,
    TokenizerSpec,
    TrainTokenizer,
)
from corpus.tokenization.trained import Inputs, trained


def resolve_tokenizer(
    spec: TokenizerSpec,
    boundary: Boundary,
    recipe: str,
    inputs: Inputs,
    config: AcquireConfig,
    data: Path,
    say: Callable[[str], None],
) -> Tokenizer:
    """Put the tokenizer of the recipe called ``recipe`` under ``data/tokenizers`` (once) and return its facts."""
    if isinstance(spec, TrainTokenizer):
        tokenizer = trained(spec, recipe, inputs, config, data, say)
    elif isinstance(spec, LlamaModelsTokenizer):
        tokenizer = _llama(spec, data, say)
    else:
        tokenizer = _copied(spec, config, data, say)
    for end, value in (("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id)):
        if boundary in (end, "both") and value is None:
            raise UserError(
                f"the recipe's boundary is '{boundary}' but the tokenizer names no {end} token",
                where=f"recipe '{recipe}': key 'tokenizer.{end}_token'", fix="Add the key, or change 'boundary'.",
            )  # fmt: skip
    return tokenizer


def _llama(spec: LlamaModelsTokenizer, data: Path, say: Callable[[str], None]) -> Tokenizer:
    from corpus.tokenization.llama import read_llama

    folder = data / FOLDER / spec.name
    if is_stored(folder):
        return stored(folder)
    say(f"converting the {spec.name} tokenizer of the llama-models package")
    text, facts = read_llama(spec.name)
    return store(folder, data, spec.name, text, facts.bos_token, facts.eos_token)


def _copied(
    spec: FileTokenizer | HubTokenizer, config: AcquireConfig, data: Path, say: Callable[[str], None]
) -> Tokenizer:
    commit = None
    if isinstance(spec, FileTokenizer):
        path, name = config.base_dir / spec.path, Path(spec.path).parent.name or "file"
        if path.is_dir():
            path = path / "tokenizer.json"
        if not path.is_file():
            raise UserError("no such tokenizer file", where=str(path), fix="Correct 'tokenizer.path' in the recipe.")
        where = str(path)
    else:
        name, where = spec.repo.replace("/", "--"), f"tokenizer of {spec.repo}"
        path, commit = hub_tokenizer(spec, config, say)
    folder = data / FOLDER / f"{name}-{fingerprint([sha256_file(path), spec.bos_token, spec.eos_token])[:12]}"
    if is_stored(folder):
        return stored(folder)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"is not a tokenizer.json ({error.reason})", where=str(path)) from None
    return store(folder, data, name, text, spec.bos_token, spec.eos_token, where=where, commit=commit)
