"""From a recipe's `tokenizer` key to a tokenizer.json in the data folder, with its boundary ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus.acquire import AcquireConfig, Listing, fetch, http, hub, release
from corpus.acquire.identity import file_identities, key_revision
from corpus.acquire.transfer import Retry, retrying
from corpus.base.errors import UserError, nearest
from corpus.base.files import atomic_write, disk_errors, fingerprint, read_json, sha256_file, write_json
from corpus.catalogue.models import Source
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.documents.units import WHOLE
from corpus.records.stream import Boundary, Tokenizer
from corpus.tokenization.specs import (
    FileTokenizer,
    HubTokenizer,
    LlamaModelsTokenizer,
    TokenizerSpec,
    TrainTokenizer,
)

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
"""Boundary tokens of a tokenizer trained here."""
META_FILE = "meta.json"
TRAIN_FORMAT = 1

Inputs = Mapping[str, tuple[Source, Listing]]
"""Mixture entry -> its source and the files of it."""


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
        tokenizer = _trained(spec, inputs, config, data, say)
    elif isinstance(spec, LlamaModelsTokenizer):
        tokenizer = _llama(spec, data, say)
    else:
        tokenizer = _copied(spec, config, data)
    for end, value in (("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id)):
        if boundary in (end, "both") and value is None:
            raise UserError(
                f"the recipe's boundary is '{boundary}' but the tokenizer names no {end} token",
                where=f"recipe '{recipe}': key 'tokenizer.{end}_token'", fix="Add the key, or change 'boundary'.",
            )  # fmt: skip
    return tokenizer


def _trained(
    spec: TrainTokenizer, inputs: Inputs, config: AcquireConfig, data: Path, say: Callable[[str], None]
) -> Tokenizer:
    key = fingerprint(
        {
            "format": TRAIN_FORMAT,
            "spec": spec.model_dump(mode="json"),
            "inputs": [
                [
                    source.model_dump(mode="json", include={"format", "adapter", "prepare"}),
                    key_revision(source.origin, listing),
                    file_identities(source.origin, listing),
                ]
                for source, listing in inputs.values()
            ],
        }
    )
    folder = data / "tokenizers" / f"bpe{spec.vocab_size}-{key[:12]}"
    if not (folder / META_FILE).is_file():
        say(f"training a byte-level BPE of {spec.vocab_size} tokens on the recipe's own text")
        text = _train_bpe(spec, _front_texts(spec, inputs, config))
        return _store(folder, data, f"bpe{spec.vocab_size}", text, BOS, EOS)
    return _stored(folder)


def _train_bpe(spec: TrainTokenizer, texts: Iterator[str]) -> str:
    from tokenizers import Tokenizer as Model
    from tokenizers import decoders, models, pre_tokenizers, trainers

    model = Model(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return str(model.to_str(pretty=True))


def _front_texts(spec: TrainTokenizer, inputs: Inputs, config: AcquireConfig) -> Iterator[str]:
    """The first ``max_bytes_per_source`` of each source's text, in mixture order."""
    for source, listing in inputs.values():
        text_of, fields = source.adapter.function(), source.adapter.needs()
        left = spec.max_bytes_per_source
        for file in sorted(listing.files, key=lambda f: f.name):
            path = fetch(source, listing, file, config)
            try:
                for _, record in read_piece(path, file.name, source.format, 0, WHOLE, fields):
                    try:
                        text = text_of(record) if not isinstance(record, BadRecord) else ""
                    except BadRecord:
                        continue
                    left -= len(text.encode())
                    yield text
                    if left <= 0:
                        break
            finally:
                release(source, file, config)
            if left <= 0:
                break


def _llama(spec: LlamaModelsTokenizer, data: Path, say: Callable[[str], None]) -> Tokenizer:
    from corpus.tokenization.llama import convert_llama

    folder = data / "tokenizers" / spec.name
    if not (folder / META_FILE).is_file():
        say(f"converting the {spec.name} tokenizer of the llama-models package")
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / "converting.json"
        facts = convert_llama(spec.name, beside)
        text = beside.read_text(encoding="utf-8")
        beside.unlink()
        return _store(folder, data, spec.name, text, facts.bos_token, facts.eos_token)
    return _stored(folder)


def _copied(spec: FileTokenizer | HubTokenizer, config: AcquireConfig, data: Path) -> Tokenizer:
    if isinstance(spec, FileTokenizer):
        path, name = config.base_dir / spec.path, Path(spec.path).parent.name or "file"
        if path.is_dir():
            path = path / "tokenizer.json"
        if not path.is_file():
            raise UserError("no such tokenizer file", where=str(path), fix="Correct 'tokenizer.path' in the recipe.")
    else:
        path, name = _from_hub(spec, config), spec.repo.replace("/", "--")
    folder = data / "tokenizers" / f"{name}-{fingerprint([sha256_file(path), spec.bos_token, spec.eos_token])[:12]}"
    if (folder / META_FILE).is_file():
        return _stored(folder)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"is not a tokenizer.json ({error.reason})", where=str(path)) from None
    return _store(folder, data, name, text, spec.bos_token, spec.eos_token)


def _from_hub(spec: HubTokenizer, config: AcquireConfig) -> Path:
    if config.mirror is not None:
        path = config.mirror / "models" / spec.repo / "tokenizer.json"
        if not path.is_file():
            raise UserError("the mirror does not hold this tokenizer", where=str(path), fix="Copy it there.")
        return path
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    folder, where = config.cache / "models", f"tokenizer of {spec.repo}"
    here = try_to_load_from_cache(spec.repo, "tokenizer.json", cache_dir=folder, revision=spec.revision)
    if isinstance(here, str) and not config.refresh:
        # A branch stays where it first stood, as those of sources do.
        return Path(here)
    if not config.offline:
        hub.require()

    def once() -> Path:
        try:
            with disk_errors(folder):
                return Path(
                    hf_hub_download(
                        spec.repo, "tokenizer.json", revision=spec.revision, cache_dir=folder,
                        endpoint=hub.endpoint(), local_files_only=config.offline,
                    )
                )  # fmt: skip
        except UserError:
            raise
        except GatedRepoError:
            raise UserError(
                f"the tokenizer of {spec.repo} is gated",
                where=f"https://huggingface.co/{spec.repo}",
                fix="Accept its terms there and log in with `hf auth login`, or name a local file as tokenizer.",
            ) from None
        except LocalEntryNotFoundError as error:
            if config.offline:
                raise UserError("was not downloaded yet", where=where, fix="Run it once without --offline.") from None
            raise Retry(f"the hub gave no answer ({type(error.__cause__).__name__})") from None
        except HfHubHTTPError as error:
            if error.response is None:
                raise Retry("the hub gave no answer") from None
            url = f"{hub.endpoint()}/{spec.repo}"
            http.raise_for(error.response.status_code, error.response.headers, url, where)
            raise UserError("the hub's answer was not understood", where=where) from None
        except OSError as error:
            raise Retry(f"the download failed ({type(error).__name__})") from None

    return retrying(once, where)


def _store(folder: Path, data: Path, name: str, text: str, bos_token: str | None, eos_token: str | None) -> Tokenizer:
    """Write tokenizer.json and then meta.json, whose presence marks the folder complete."""
    try:
        facts = json.loads(text)
        tokens = facts.get("added_tokens") or []
        added = {token["content"]: int(token["id"]) for token in tokens if token.get("special")}
        largest = max([*_model_ids(facts["model"]["vocab"]), *(int(token["id"]) for token in tokens)])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"is not a tokenizer.json ({type(error).__name__}: {error})", where=name) from None
    ids = []
    for token in (bos_token, eos_token):
        if token is not None and token not in added:
            raise UserError(f"'{token}' is no special token of this tokenizer", where=name, fix=nearest(token, added))
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
    )
    write_json(
        folder / META_FILE,
        {"bos_token": bos_token, "eos_token": eos_token, "tokenizer": tokenizer.model_dump(mode="json")},
    )
    return tokenizer


def _model_ids(vocab: Any) -> Iterator[int]:
    """Ids of a BPE vocabulary (a mapping) or a Unigram one (a list of pairs)."""
    yield from (vocab.values() if isinstance(vocab, dict) else range(len(vocab)))


def _stored(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.model_validate(read_json(folder / META_FILE)["tokenizer"])
    if sha256_file(folder / "tokenizer.json") != tokenizer.sha256:
        raise UserError("tokenizer.json is not the one the build wrote", where=str(folder), fix="Delete the folder.")
    return tokenizer
