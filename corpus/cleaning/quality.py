"""datatrove's quality filters for English text, under the names and settings they have there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from corpus.base.errors import UserError
from corpus.cleaning.step import StepFunction, TextStep

if TYPE_CHECKING:
    from datatrove.data import Document


class _DatatroveStep(TextStep):
    """A filter of datatrove for English text; its settings are the fields, named as datatrove names them."""

    filter_name: ClassVar[str]

    def function(self) -> StepFunction:
        """Reasons: <step>.<datatrove's reason>, <step>.empty."""
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
