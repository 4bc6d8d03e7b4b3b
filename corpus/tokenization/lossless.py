"""Whether a tokenizer keeps text: decoding what it encodes gives the text back, but for what it declares to change.

Declared are its normalizer, a space put before words (SentencePiece's dummy prefix), the space written as U+2581, and
the spaces that an added token takes with it (`lstrip`, `rstrip`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from corpus.tokenization.engine import Ids

WORD_START = "\u2581"
LONG = 60
"""Characters; of a longer text the part that is lost is looked for."""


class Change(NamedTuple):
    """A text that does not come back as it was."""

    text: str
    back: str


class Findings(NamedTuple):
    """What decoding the texts has shown."""

    lost: Change | None
    """The first text of which something is lost."""
    changed: Change | None
    """The first text that the normalizer rewrites, and what it makes of it."""


def round_trips(tokenizer: Any, plain_json: str, texts: Sequence[str], rows: Sequence[Ids]) -> Findings:
    """Decode ``rows``, the ids of ``texts`` from a `tokenizers.Tokenizer` made from ``plain_json`` (a plain one)."""
    keeper = _Keeper(tokenizer, plain_json)
    backs = tokenizer.decode_batch([row.tolist() for row in rows], skip_special_tokens=False)
    changed = None
    for text, back in zip(texts, backs, strict=True):
        if back == text:
            continue
        if not keeper.keeps(text, back):
            return Findings(keeper.shortest(Change(text, back)), changed)
        if changed is None and (rewritten := keeper.normalize(text)) != text and not keeper.matches([text], rewritten):
            changed = Change(text, rewritten)
    return Findings(None, changed)


class _Keeper:
    """Knows what a tokenizer declares to change."""

    def __init__(self, tokenizer: Any, plain_json: str) -> None:
        self._tokenizer, data = tokenizer, json.loads(plain_json)
        self.normalize: Callable[[str], str] = (
            tokenizer.normalizer.normalize_str if tokenizer.normalizer is not None else str
        )
        self._added = {tokenizer.token_to_id(token["content"]): token["content"] for token in data["added_tokens"]}
        parts = list(_parts([data.get("normalizer"), data.get("pre_tokenizer")]))
        self._word_starts = any(WORD_START in str(part.get("content", part.get("replacement", ""))) for part in parts)
        self._prefixes = any(
            part.get("type") == "Prepend"
            or part.get("add_prefix_space")
            or part.get("prepend_scheme", "never") != "never"
            for part in parts
        )
        self._plain_json, self._byte_level = plain_json, any(part.get("type") == "ByteLevel" for part in parts)

    @functools.cached_property
    def _undoing(self) -> Any:
        """The tokenizer with a decoder that spells the ids out, whatever the file's own makes of them (or has none)."""
        from tokenizers import Tokenizer, decoders

        tokenizer = Tokenizer.from_str(self._plain_json)
        bytes_joined = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        tokenizer.decoder = decoders.ByteLevel() if self._byte_level else bytes_joined
        return tokenizer

    def keeps(self, text: str, back: str) -> bool:
        """Whether ``back``, or else what the ids themselves spell, is the text as the tokenizer declares it."""
        pieces = self._declared(text)
        return self.matches(pieces, back) or self.matches(pieces, self._decoded(self._undoing, text))

    def shortest(self, change: Change) -> Change:
        """What shows the loss in fewer words: a long text's first character or word that does not come back."""
        text = change.text
        for part in dict.fromkeys([*text, *text.split()]) if len(text) > LONG else []:
            if not self.keeps(part, back := self._decoded(self._tokenizer, part)):
                return Change(part, back)
        return change

    def matches(self, pieces: list[str], back: str) -> bool:
        """Whether ``back`` is the pieces, each with or without a space before it where the tokenizer puts one."""
        back = self._plain(back)
        ends = {0}
        for piece in filter(None, map(self._plain, pieces)):
            choices = {piece, f" {piece}", piece.removeprefix(" ")} if self._prefixes else {piece}
            ends = {end + len(choice) for end in ends for choice in choices if back.startswith(choice, end)}
        return len(back) in ends

    def _declared(self, text: str) -> list[str]:
        """The text as it should come back: what stands between added tokens normalized, and these, as pieces."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        pieces, end = [], 0
        for token, (low, high) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self._added and high > low:
                pieces += [self.normalize(text[end:low]), self._added[token]]
                end = high
        return [*pieces, self.normalize(text[end:])]

    def _decoded(self, decoder: Any, text: str) -> str:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return str(decoder.decode(ids, skip_special_tokens=False))

    def _plain(self, text: str) -> str:
        return text.replace(WORD_START, " ") if self._word_starts else text


def _parts(values: Any) -> Iterator[dict[str, Any]]:
    """All objects in a piece of JSON."""
    if isinstance(values, dict):
        yield values
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _parts(value)
