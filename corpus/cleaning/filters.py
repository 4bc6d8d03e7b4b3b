"""Document steps: small callables that keep a document (None), perhaps rewritten, or name the reason it goes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from datatrove.data import Document

from corpus.base.errors import UserError

EMAIL_REACH = 320
"""Characters looked at on either side of an @: the longest address allowed is 254 characters."""


def metadata_field(metadata: dict[str, Any], field: str) -> Any:
    """The value at ``field``: a key as it stands, else dots descend into objects; None when there is none."""
    if field in metadata:
        return metadata[field]
    value: Any = metadata
    for part in field.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


@dataclass(frozen=True)
class Score:
    """Drops documents that score below ``minimum`` or have no score."""

    field: str
    minimum: float

    def __call__(self, document: Document) -> str | None:
        """Reasons: score.missing, score.below_minimum."""
        value = metadata_field(document.metadata, self.field)
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return "score.missing"
        try:
            score = float(value)
        except (ValueError, OverflowError):
            return "score.missing"
        if math.isnan(score):
            return "score.missing"
        return None if score >= self.minimum else "score.below_minimum"


@dataclass(frozen=True)
class Language:
    """Keeps documents labelled with one of ``languages`` (case-folded codes)."""

    field: str
    languages: frozenset[str]

    def __call__(self, document: Document) -> str | None:
        """Reasons: language.missing, language.other."""
        value = metadata_field(document.metadata, self.field)
        if not isinstance(value, str) or not value:
            return "language.missing"
        return None if value.casefold() in self.languages else "language.other"


@dataclass(frozen=True)
class Length:
    """Keeps documents of ``min_chars`` to ``max_chars`` characters."""

    min_chars: int
    max_chars: int | None

    def __call__(self, document: Document) -> str | None:
        """Reasons: length.short, length.long."""
        length = len(document.text)
        if length < self.min_chars:
            return "length.short"
        return "length.long" if self.max_chars is not None and length > self.max_chars else None


class Regex:
    """Drops documents in which the pattern is found, or those in which it is not."""

    def __init__(self, pattern: str, drop_matching: bool, reason: str) -> None:
        self._search = re.compile(pattern).search
        self._arguments = (pattern, drop_matching, reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return Regex, self._arguments

    def __call__(self, document: Document) -> str | None:
        """Reason: as given."""
        _, drop_matching, reason = self._arguments
        return reason if (self._search(document.text) is not None) is drop_matching else None


@dataclass(frozen=True)
class SpecialTokens:
    """Drops documents that spell a control token, or strips the spellings."""

    spellings: tuple[str, ...]
    strip: bool

    def __call__(self, document: Document) -> str | None:
        """Reason: special_tokens.leaked."""
        text = document.text
        found = [spelling for spelling in self.spellings if spelling in text]
        if not found:
            return None
        if not self.strip:
            return "special_tokens.leaked"
        longest_first = re.compile("|".join(re.escape(one) for one in sorted(self.spellings, key=len, reverse=True)))
        while True:
            # Stripping can join the halves of another spelling: <|im_<|im_end|>end|>.
            shorter = longest_first.sub("", text)
            if len(shorter) == len(text):
                break
            text = shorter
        document.text = text
        return None


class Pii:
    """Masks e-mail and public IP addresses with datatrove's PIIFormatter.

    One replacement per kind: datatrove's rotation through several would make a document's text depend on the documents
    before it. E-mail addresses are searched for around each @ only, since the expression takes quadratic time
    on long runs without one, such as base64.
    """

    def __init__(self, email: str | None, ip: str | None) -> None:
        from datatrove.pipeline.formatters import PIIFormatter

        self._arguments = (email, ip)
        self._emails = PIIFormatter(remove_ips=False, email_replacement=email) if email is not None else None
        self._ips = PIIFormatter(remove_emails=False, ip_replacement=ip) if ip is not None else None

    def __reduce__(self) -> tuple[Any, ...]:
        return Pii, self._arguments

    def __call__(self, document: Document) -> str | None:
        """Never drops."""
        text = document.text
        if self._emails is not None and "@" in text:
            parts: list[str] = []
            done = 0
            for low, high in _around(text, "@", EMAIL_REACH):
                parts += text[done:low], self._emails.format(text[low:high])
                done = high
            text = "".join([*parts, text[done:]])
        if self._ips is not None:
            text = self._ips.format(text)
        document.text = text
        return None


def _around(text: str, mark: str, reach: int) -> list[tuple[int, int]]:
    """Disjoint ranges of ``text`` that cover ``reach`` characters on either side of every ``mark``."""
    ranges: list[tuple[int, int]] = []
    at = text.find(mark)
    while at >= 0:
        low, high = max(at - reach, 0), min(at + reach, len(text))
        if ranges and low <= ranges[-1][1]:
            low = ranges.pop()[0]
        ranges.append((low, high))
        at = text.find(mark, at + 1)
    return ranges


class DatatroveFilter:
    """A filter class of datatrove, by name; drops under <step>.<datatrove's reason>."""

    def __init__(self, step: str, name: str, settings: dict[str, Any]) -> None:
        from datatrove.pipeline import filters
        from datatrove.utils.typeshelper import Languages
        from datatrove.utils.word_tokenizers import load_word_tokenizer

        try:
            load_word_tokenizer(Languages.english)
        except ImportError:
            raise UserError(
                "needs the spaCy package to split text into words", where=f"cleaning step '{step}'",
                fix="Run: pip install spacy (no language model is needed).",
            ) from None  # fmt: skip
        self._arguments = (step, name, settings)
        self._filter = getattr(filters, name)(**settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return DatatroveFilter, self._arguments

    def __call__(self, document: Document) -> str | None:
        """Reasons: <step>.empty, <step>.<datatrove's reason>."""
        step = self._arguments[0]
        if not document.text or document.text.isspace():
            return f"{step}.empty"  # the ratios of datatrove's filters have no value here
        verdict = self._filter.filter(document)
        kept, why = verdict if isinstance(verdict, tuple) else (verdict, "failed")
        return None if kept else f"{step}.{why.removeprefix('gopher_')}"
