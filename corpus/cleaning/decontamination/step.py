"""The step `decontaminate`: drop documents that share a word n-gram with an evaluation set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from corpus.cleaning.reasons import CONTAMINATED
from corpus.cleaning.step import StepFunction, TextStep
from corpus.records.stream import EvaluationSet

if TYPE_CHECKING:
    from datatrove.data import Document


SEARCH = 2
"""Raised whenever the code finds other documents by the same settings; part of the key."""


class DecontaminateStep(TextStep):
    """Drop documents that share a word n-gram with an evaluation set."""

    step: Literal["decontaminate"] = "decontaminate"
    against: tuple[str, ...] = Field(min_length=1)
    """Evaluation sets the catalogue knows by name (gsm8k), or files of them (.jsonl, .json, .parquet, .txt; all but
    .parquet also compressed) and globs of those."""
    fields: tuple[str, ...] = ()
    """Record fields that hold an example's texts, dots descend into objects; empty means every text in it but ids,
    labels and addresses (told by the field's name, or by being a single word). Each is compared for itself."""
    ngram: int = Field(default=13, ge=3, le=64)
    """Consecutive words (runs of letters and digits, whatever their case and accents) that must agree. In scripts
    without spaces 2 (Han, kana) or 3 (Thai, Khmer ...) characters count as a word."""
    shortest: int = Field(default=8, ge=1, le=64)
    """Texts of fewer than `ngram` words, but at least this many, must be there whole; shorter ones are not looked for.
    A choice of ours, after the 8 to 13 words by set of GPT-3 (Brown et al. 2020, appendix C)."""

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
        from corpus.cleaning.decontamination.evalsets import find_files

        digests = sorted({sha256_file(path) for path in find_files(self.against)})
        return {
            "step": self.step, "fields": list(self.fields), "ngram": self.ngram, "shortest": self.shortest,
            "search": SEARCH, "against": digests,
        }  # fmt: skip

    def function(self) -> StepFunction:
        """Reason: contaminated; the hits are left in ``document.metadata["contamination"]``."""
        from corpus.cleaning.decontamination.step import Decontaminate

        return Decontaminate(self.against, self.fields, self.ngram, self.shortest)

    def sets(self) -> list[EvaluationSet]:
        """What can be seen of each file of examples. Reads them; raises UserError where nothing can be."""
        from corpus.cleaning.decontamination.search import load_decontaminator

        return load_decontaminator(self.against, self.fields, self.ngram, self.shortest).sets()


class Decontaminate:
    """The document step: drops contaminated documents, leaving the hits in their metadata for the report."""

    def __init__(self, against: tuple[str, ...], fields: tuple[str, ...], ngram: int, shortest: int) -> None:
        self._arguments = (against, fields, ngram, shortest)
        from corpus.cleaning.decontamination.evalsets import find_files

        find_files(against)

    def __call__(self, document: Document) -> str | None:
        """Reason: contaminated."""
        return self.batch([document])[0]

    def batch(self, documents: Sequence[Document]) -> list[str | None]:
        """The verdicts on several documents, much faster for short ones."""
        from corpus.cleaning.decontamination.search import load_decontaminator

        reasons: list[str | None] = []
        texts = [document.text for document in documents]
        for document, hits in zip(documents, load_decontaminator(*self._arguments).check_many(texts), strict=True):
            if hits:
                document.metadata["contamination"] = [hit._asdict() for hit in hits]
            reasons.append(CONTAMINATED if hits else None)
        return reasons
