"""Steps that look at the text alone: length, regex, special_tokens, pii."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from corpus.cleaning.step import StepFunction, TextStep

if TYPE_CHECKING:
    from datatrove.data import Document

EMAIL_REACH = 320
"""Characters looked at on either side of an @: the longest address allowed is 254 characters."""


SPECIAL_SPELLINGS = (
    "<|endoftext|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
    "<|python_tag|>", "<|finetune_right_pad_id|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>",
    "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
)  # fmt: skip
"""Control tokens of common tokenizers that are not ordinary text anywhere; `<s>` is not among them, it is HTML."""


class LengthStep(TextStep):
    """Drop documents shorter or longer than this many characters."""

    step: Literal["length"] = "length"
    min_chars: int = Field(default=1, ge=0)
    """Fewest characters kept."""
    max_chars: int | None = Field(default=None, ge=1)
    """Most characters kept; null means no limit."""

    @model_validator(mode="after")
    def _ordered(self) -> LengthStep:
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError("max_chars is below min_chars: every document would be dropped")
        return self

    def function(self) -> StepFunction:
        """Reasons: length.short, length.long."""
        return Length(self.min_chars, self.max_chars)


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


class RegexStep(TextStep):
    """Drop documents by a regular expression searched for in the text."""

    step: Literal["regex"] = "regex"
    name: str = Field(default="pattern", pattern=r"^[a-z0-9][a-z0-9_]{0,31}$")
    """Short name of the pattern; documents are dropped under regex.<name>."""
    pattern: str = Field(min_length=1)
    """Python regular expression; flags stand inside it, as in (?i)."""
    drop: Literal["matching", "not_matching"] = "matching"
    """Which documents go."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    def function(self) -> StepFunction:
        """Reason: regex.<name>."""
        return Regex(self.pattern, self.drop == "matching", f"regex.{self.name}")


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


class SpecialTokensStep(TextStep):
    """Deal with spellings of tokenizers' control tokens that leaked into the text."""

    step: Literal["special_tokens"] = "special_tokens"
    action: Literal["drop", "strip"] = "drop"
    """drop the document, or strip the spellings from its text."""
    spellings: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=SPECIAL_SPELLINGS, min_length=1)
    """Spellings looked for; replaces the built-in list."""

    def function(self) -> StepFunction:
        """Reason: special_tokens.leaked."""
        return SpecialTokens(self.spellings, self.action == "strip")


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


class PiiStep(TextStep):
    """Mask e-mail addresses and public IP addresses, found by datatrove's PIIFormatter."""

    step: Literal["pii"] = "pii"
    email: str | None = "email@example.com"
    """What every e-mail address becomes; null leaves them alone."""
    ip: str | None = "22.214.171.124"
    """What every public IPv4 address becomes; null leaves them alone."""

    def function(self) -> StepFunction:
        """Never drops."""
        return Pii(self.email, self.ip)


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
