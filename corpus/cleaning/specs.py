"""The cleaning steps a recipe can name, and their settings.

Two kinds. A document step decides on one document alone: its ``function()`` returns a callable that gives None to keep
the document (perhaps with its text rewritten in place) or the reason it is dropped under. A corpus step compares
documents with each other (exact_dedup, minhash): it needs passes of its own, and ends in one drop list per unit.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from corpus.base.config import Strict

if TYPE_CHECKING:
    from datatrove.data import Document

StepFunction = Callable[["Document"], "str | None"]
"""None keeps the document; a string is the reason it is dropped under. Picklable and deterministic."""

CONTAMINATED = "contaminated"
"""The reason of documents that share an n-gram with an evaluation set."""

SPECIAL_SPELLINGS = (
    "<|endoftext|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
    "<|python_tag|>", "<|finetune_right_pad_id|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>",
    "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
)  # fmt: skip
"""Control tokens of common tokenizers that are not ordinary text anywhere; `<s>` is not among them, it is HTML."""


class Step(Strict):
    """What every cleaning step has."""

    corpus_wide: ClassVar[bool] = False
    """True for steps that compare documents with each other and so need passes of their own."""

    sources: tuple[str, ...] = ()
    """Mixture entries this step applies to; empty means all."""

    def at(self, folder: Path) -> Step:
        """This step with its relative paths taken from ``folder`` (the recipe's)."""
        return self

    def key(self) -> dict[str, Any]:
        """Everything that determines what the step does to a document, as JSON values; no paths, no source names."""
        return self.model_dump(mode="json", exclude={"sources"})


class DocumentStep(Step):
    """A step that decides on each document alone."""

    def function(self) -> StepFunction:
        """The document -> reason function; raises UserError when something it needs is missing."""
        raise NotImplementedError


class ScoreStep(DocumentStep):
    """Drop documents whose record scores below a minimum, or has no number there."""

    step: Literal["score"] = "score"
    field: str = "score"
    """Record field with the score (a number, or text that is one); dots descend into objects."""
    minimum: float
    """Lowest score kept."""

    def function(self) -> StepFunction:
        """Reasons: score.missing, score.below_minimum."""
        from corpus.cleaning.filters import Score

        return Score(self.field, self.minimum)


class LanguageStep(DocumentStep):
    """Keep the documents whose record names one of these languages."""

    step: Literal["language"] = "language"
    languages: tuple[str, ...] = Field(min_length=1)
    """Language codes to keep, spelled as the source spells them (upper and lower case are equal)."""
    field: str = "language"
    """Record field with the language code; dots descend into objects."""

    def function(self) -> StepFunction:
        """Reasons: language.missing, language.other."""
        from corpus.cleaning.filters import Language

        return Language(self.field, frozenset(code.casefold() for code in self.languages))


class LengthStep(DocumentStep):
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
        from corpus.cleaning.filters import Length

        return Length(self.min_chars, self.max_chars)


class RegexStep(DocumentStep):
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
        from corpus.cleaning.filters import Regex

        return Regex(self.pattern, self.drop == "matching", f"regex.{self.name}")


class SpecialTokensStep(DocumentStep):
    """Deal with spellings of tokenizers' control tokens that leaked into the text."""

    step: Literal["special_tokens"] = "special_tokens"
    action: Literal["drop", "strip"] = "drop"
    """drop the document, or strip the spellings from its text."""
    spellings: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=SPECIAL_SPELLINGS, min_length=1)
    """Spellings looked for; replaces the built-in list."""

    def function(self) -> StepFunction:
        """Reason: special_tokens.leaked."""
        from corpus.cleaning.filters import SpecialTokens

        return SpecialTokens(self.spellings, self.action == "strip")


class PiiStep(DocumentStep):
    """Mask e-mail addresses and public IP addresses, found by datatrove's PIIFormatter."""

    step: Literal["pii"] = "pii"
    email: str | None = "email@example.com"
    """What every e-mail address becomes; null leaves them alone."""
    ip: str | None = "22.214.171.124"
    """What every public IPv4 address becomes; null leaves them alone."""

    def function(self) -> StepFunction:
        """Never drops."""
        from corpus.cleaning.filters import Pii

        return Pii(self.email, self.ip)


class _DatatroveStep(DocumentStep):
    """A filter of datatrove for English text; its settings are the fields, named as datatrove names them."""

    filter_name: ClassVar[str]

    def function(self) -> StepFunction:
        """Reasons: <step>.<datatrove's reason>, <step>.empty."""
        from corpus.cleaning.filters import DatatroveFilter

        settings = self.model_dump(exclude={"sources"})
        return DatatroveFilter(settings.pop("step"), self.filter_name, settings)


class GopherQualityStep(_DatatroveStep):
    """Gopher's quality rules: word counts, word lengths, symbols, bullet points, stop words. English, needs spaCy."""

    filter_name: ClassVar[str] = "GopherQualityFilter"
    step: Literal["gopher_quality"] = "gopher_quality"
    min_doc_words: int | None = 50
    """Fewest words kept; null turns a rule off, here and below."""
    max_doc_words: int | None = 100_000
    """Most words kept."""
    min_avg_word_length: float | None = 3
    """Lowest mean word length, in characters."""
    max_avg_word_length: float | None = 10
    """Highest mean word length, in characters."""
    max_symbol_word_ratio: float | None = 0.1
    """Most hash signs, or ellipses, per word."""
    max_bullet_lines_ratio: float | None = 0.9
    """Largest share of lines that start with a bullet point."""
    max_ellipsis_lines_ratio: float | None = 0.3
    """Largest share of lines that end with an ellipsis."""
    max_non_alpha_words_ratio: float | None = 0.8
    """Smallest share of words with a letter in them (datatrove's name says the contrary of what it does)."""
    min_stop_words: int | None = 2
    """Fewest different English stop words."""


class GopherRepetitionStep(_DatatroveStep):
    """Gopher's repetition rules: repeated lines, paragraphs and word n-grams. English, needs spaCy."""

    filter_name: ClassVar[str] = "GopherRepetitionFilter"
    step: Literal["gopher_repetition"] = "gopher_repetition"
    dup_line_frac: float | None = 0.3
    """Largest share of repeated lines; null turns a rule off, here and below."""
    dup_para_frac: float | None = 0.3
    """Largest share of repeated paragraphs."""
    dup_line_char_frac: float | None = 0.2
    """Largest share of characters in repeated lines."""
    dup_para_char_frac: float | None = 0.2
    """Largest share of characters in repeated paragraphs."""
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    """Pairs of n and the largest share of characters covered by the most frequent word n-gram."""
    dup_n_grams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    """Pairs of n and the largest share of characters covered by repeated word n-grams."""


class C4QualityStep(_DatatroveStep):
    """C4's rules: removes lines, then drops documents left with few sentences. Rewrites text; English, needs spaCy."""

    filter_name: ClassVar[str] = "C4QualityFilter"
    step: Literal["c4_quality"] = "c4_quality"
    split_paragraph: bool = True
    """Judge line by line (as C4); false judges sentence by sentence."""
    remove_citations: bool = True
    """Remove Wikipedia-style citation marks."""
    filter_no_terminal_punct: bool = True
    """Remove lines without closing punctuation."""
    min_num_sentences: int = 5
    """Fewest sentences a document must keep; -1 turns a rule off, here and below."""
    min_words_per_line: int = 3
    """Lines with fewer words are removed."""
    max_word_length: int = 1000
    """Lines with a longer word are removed."""
    filter_lorem_ipsum: bool = True
    """Drop documents with placeholder text."""
    filter_javascript: bool = True
    """Remove lines that mention javascript."""
    filter_curly_bracket: bool = True
    """Drop documents with a curly bracket (this drops code and LaTeX)."""
    filter_policy: bool = True
    """Remove lines about cookies and terms of use."""


class FineWebQualityStep(_DatatroveStep):
    """FineWeb's own rules: line endings, short lines, repeated characters, lists. English, needs spaCy."""

    filter_name: ClassVar[str] = "FineWebQualityFilter"
    step: Literal["fineweb_quality"] = "fineweb_quality"
    line_punct_thr: float = 0.12
    """Smallest share of lines that end in punctuation."""
    line_punct_exclude_zero: bool = False
    """Keep documents in which no line at all ends in punctuation."""
    short_line_thr: float = 0.67
    """Largest share of short lines."""
    short_line_length: int = 30
    """A line of at most this many characters is short."""
    char_duplicates_ratio: float = 0.01
    """Largest share of characters in repeated lines."""
    new_line_ratio: float = 0.3
    """Most line breaks per word."""


class DecontaminateStep(DocumentStep):
    """Drop documents that share a word n-gram with an evaluation set."""

    step: Literal["decontaminate"] = "decontaminate"
    against: tuple[str, ...] = Field(min_length=1)
    """Evaluation sets the catalogue knows by name (gsm8k), or files of them (.jsonl, .json, .parquet, .txt; all but
    .parquet also compressed) and globs of those."""
    fields: tuple[str, ...] = ()
    """Record fields that make up an example's text, dots descend into objects; empty means every text in it."""
    ngram: int = Field(default=13, ge=3, le=64)
    """Consecutive words (runs of letters and digits, lower-cased) that must agree."""

    def at(self, folder: Path) -> DecontaminateStep:
        """With the files' paths taken from ``folder``; names stay names."""
        named = self.names()
        return self.with_files({entry: [folder / entry] for entry in self.against if entry not in named})

    def names(self) -> tuple[str, ...]:
        """The entries that name evaluation sets: bare words, as every file has an ending."""
        return tuple(entry for entry in self.against if re.fullmatch(r"[\w-]+", entry))

    def with_files(self, files: Mapping[str, Sequence[Path]]) -> DecontaminateStep:
        """With the entries in ``files`` replaced by those paths."""
        replaced = (map(str, files[entry]) if entry in files else (entry,) for entry in self.against)
        return self.model_copy(update={"against": tuple(itertools.chain.from_iterable(replaced))})

    def key(self) -> dict[str, Any]:
        """The files count by content; their names and places do not."""
        from corpus.base.files import sha256_file
        from corpus.cleaning.evalsets import find_files

        digests = sorted({sha256_file(path) for path in find_files(self.against)})
        return {"step": self.step, "fields": list(self.fields), "ngram": self.ngram, "against": digests}

    def function(self) -> StepFunction:
        """Reason: contaminated; the hits are left in ``document.metadata["contamination"]``."""
        from corpus.cleaning.decontaminate import Decontaminate

        return Decontaminate(self.against, self.fields, self.ngram)


class ExactDedupStep(Step):
    """Drop documents whose text equals that of an earlier one (earlier: by source order, unit, place in the unit)."""

    corpus_wide: ClassVar[bool] = True
    step: Literal["exact_dedup"] = "exact_dedup"
    scope: Literal["recipe", "source"] = "recipe"
    """Compare across all the recipe's sources (in mixture order), or inside each source only."""


class MinhashStep(Step):
    """Drop near-duplicates found by datatrove's MinHash; the earliest document of each cluster stays."""

    corpus_wide: ClassVar[bool] = True
    step: Literal["minhash"] = "minhash"
    scope: Literal["recipe", "source"] = "recipe"
    """Compare across all the recipe's sources (in mixture order), or inside each source only."""
    ngram: int = Field(default=5, ge=1, le=64)
    """Words per shingle."""
    buckets: int = Field(default=14, ge=1, le=999)
    """Bands of the signature; two documents that agree on any one band are near-duplicates."""
    hashes_per_bucket: int = Field(default=8, ge=1, le=128)
    """Hashes per band; the similarity found half of the time is about (1 / buckets) ** (1 / hashes_per_bucket)."""


CleaningStep = Annotated[
    ScoreStep
    | LanguageStep
    | LengthStep
    | RegexStep
    | SpecialTokensStep
    | PiiStep
    | GopherQualityStep
    | GopherRepetitionStep
    | C4QualityStep
    | FineWebQualityStep
    | DecontaminateStep
    | ExactDedupStep
    | MinhashStep,
    Field(discriminator="step"),
]
"""One entry of a recipe's `cleaning` list."""
