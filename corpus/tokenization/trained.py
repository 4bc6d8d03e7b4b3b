"""A tokenizer trained on the front of a recipe's own sources."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus.acquire import AcquireConfig, Listing, fetch, release
from corpus.acquire.identity import file_identities, key_revision
from corpus.base.errors import UserError
from corpus.base.files import fingerprint, read_json, write_json
from corpus.catalogue.models import Source
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.documents.units import WHOLE
from corpus.records.stream import Tokenizer
from corpus.tokenization.folder import FOLDER, is_stored, store, stored
from corpus.tokenization.specs import TrainTokenizer

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
"""Boundary tokens of a tokenizer trained here."""
TRAIN_FORMAT = 1

Inputs = Mapping[str, tuple[Source, Listing]]
"""Mixture entry -> its source and the files of it."""


def trained(
    spec: TrainTokenizer, recipe: str, inputs: Inputs, config: AcquireConfig, data: Path, say: Callable[[str], None]
) -> Tokenizer:
    """The tokenizer of the recipe called ``recipe``, trained if there is none yet for these sources and settings.

    Says beforehand when it replaces the one the recipe had in this data folder, and why. Raises UserError for a source
    that has no text to train on.
    """
    used = {name: _identity(source, listing) for name, (source, listing) in inputs.items()}
    settings = spec.model_dump(mode="json")
    key = fingerprint({"format": TRAIN_FORMAT, "spec": settings, "inputs": list(used.values())})
    folder = data / FOLDER / f"bpe{spec.vocab_size}-{key[:12]}"
    note = data / FOLDER / "trained" / f"{recipe}.json"
    facts: dict[str, Any] = {
        "tokenizer": folder.name,
        "settings": settings,
        "inputs": {name: fingerprint(identity) for name, identity in used.items()},
    }
    last: dict[str, Any] = read_json(note) if note.is_file() else facts
    if last != facts and (why := _differences(last, facts)):
        kept = f'{{kind: file, path: {data / FOLDER / last["tokenizer"]}, bos_token: "{BOS}", eos_token: "{EOS}"}}'
        say(
            f"note: the tokenizer is not the one this recipe had here last ({why}): all {len(inputs)} streams are made "
            f"anew with it. To keep the last one, write 'tokenizer: {kept}'"
        )
    if is_stored(folder):
        tokenizer = stored(folder)
    else:
        say(f"training a byte-level BPE of {spec.vocab_size} tokens on the recipe's own text")
        text = train_bpe(spec, _front_texts(spec, inputs, config))
        tokenizer = store(folder, data, f"bpe{spec.vocab_size}", text, BOS, EOS)
    if last != facts or not note.is_file():
        with contextlib.suppress(UserError):  # nothing is lost but the next announcement
            write_json(note, facts)
    return tokenizer


def _identity(source: Source, listing: Listing) -> list[Any]:
    """What of a source decides its text, for keys."""
    return [
        source.model_dump(mode="json", include={"format", "adapter", "prepare"}),
        key_revision(source.origin, listing),
        file_identities(source.origin, listing),
    ]


def _differences(last: dict[str, Any], now: dict[str, Any]) -> str:
    """What makes another tokenizer of the last one, in words."""
    before, after = last["inputs"], now["inputs"]
    changed = [f"source '{name}' changed" for name in after if name in before and before[name] != after[name]]
    changed += [f"source '{name}' is new" for name in after if name not in before]
    changed += [f"source '{name}' is gone" for name in before if name not in after]
    changed += [
        f"{key} was {last['settings'].get(key)}" for key, value in now["settings"].items()
        if last["settings"].get(key) != value
    ]  # fmt: skip
    if not changed and last["tokenizer"] != now["tokenizer"]:
        changed = ["the order of its sources changed"]
    return ", ".join(changed)


def train_bpe(spec: TrainTokenizer, texts: Iterator[str]) -> str:
    """A byte-level BPE trained on ``texts``, as the text of a tokenizer.json."""
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
    """The first ``max_bytes_per_source`` of each source's text, in mixture order; each has some."""
    for name, (source, listing) in inputs.items():
        tally = _Tally()
        for text in _front(spec.max_bytes_per_source, source, listing, config, tally):
            tally.bytes += len(text.encode())
            yield text
        if not tally.bytes:
            raise UserError(
                f"has no text to train the tokenizer on: {tally.told()}",
                where=f"mixture entry '{name}'", fix="Check its format, its adapter and its files.",
            )  # fmt: skip


class _Tally:
    """What was read of one source."""

    def __init__(self) -> None:
        self.records = self.bytes = 0
        self.dropped: Counter[str] = Counter()
        self.first: str | None = None
        """Place of the first record without text."""

    def drop(self, reason: str, place: str) -> None:
        """Count a record without text."""
        self.dropped[reason] += 1
        self.first = self.first or place

    def told(self) -> str:
        """The counts in words."""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.dropped.items()))
        return f"read {self.records:,} records, kept 0" + (f": {reasons}; first {self.first}" if reasons else "")


def _front(limit: int, source: Source, listing: Listing, config: AcquireConfig, tally: _Tally) -> Iterator[str]:
    text_of, fields = source.adapter.function(), source.adapter.needs()
    left = limit
    for file in sorted(listing.files, key=lambda f: f.name):
        path = fetch(source, listing, file, config)
        try:
            for place, record in read_piece(path, file.name, source.format, 0, WHOLE, fields):
                tally.records += 1
                why = record if isinstance(record, BadRecord) else None
                text = ""
                if not isinstance(record, BadRecord):
                    try:
                        text = text_of(record)
                    except BadRecord as bad:
                        why = bad
                if not text:
                    tally.drop(why.reason if why else "empty", f"{file.name}:{place}")
                    continue
                left -= len(text.encode())
                yield text
                if left <= 0:
                    break
        finally:
            release(source, file, config)
        if left <= 0:
            break
