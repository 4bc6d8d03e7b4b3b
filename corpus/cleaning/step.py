"""What a cleaning step is: its settings (a recipe's entry), and how it decides.

Two kinds. A document step decides on one document alone: its ``function()`` returns a callable that gives None to keep
the document (perhaps with its text rewritten in place) or the reason it is dropped under. A comparison compares
documents with each other (exact_dedup, minhash): it needs passes of its own, and ends in one drop list per unit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from corpus.base.config import Strict
from corpus.cleaning.reasons import DropReason

if TYPE_CHECKING:
    from datatrove.data import Document

StepFunction = Callable[["Document"], "str | None"]
"""None keeps the document; a string is the reason it is dropped under. Picklable and deterministic."""


KeysOf = Callable[[str], "bytes | None"]
"""What a comparison compares a text by."""


class Step(Strict):
    """What every cleaning step has."""

    compares: ClassVar[bool] = False
    """True for steps that compare documents with each other and so need passes of their own."""

    sources: tuple[str, ...] = ()
    """Mixture entries this step applies to; empty means all."""

    def at(self, folder: Path) -> Step:
        """This step with its relative paths taken from ``folder`` (the recipe's)."""
        return self

    def needs(self) -> frozenset[str] | None:
        """Paths of the record's fields it looks at beside the text (a key as it stands, else dots descend into
        objects); None when it may look at any."""
        return None

    def key(self) -> dict[str, Any]:
        """Everything that determines what the step does to a document, as JSON values; no paths, no source names."""
        return self.model_dump(mode="json", exclude={"sources"})


class DocumentStep(Step):
    """A step that decides on each document alone."""

    def function(self) -> StepFunction:
        """The document -> reason function; raises UserError when something it needs is missing."""
        raise NotImplementedError


class TextStep(DocumentStep):
    """A document step that looks at the text alone."""

    def needs(self) -> frozenset[str]:
        """No field of the record."""
        return frozenset()


class ComparisonStep(Step):
    """A step that compares documents with each other, and so needs passes of its own."""

    compares: ClassVar[bool] = True
    scope: Literal["recipe", "source"] = "recipe"
    """Compare across all the recipe's sources (in mixture order), or inside each source only."""

    reason: ClassVar[DropReason]
    """What its documents are dropped under."""
    joins: ClassVar[bool] = False
    """Whether documents with equal keys are one with all that these have equal keys with."""

    def needs(self) -> frozenset[str]:
        """No field of the record: texts are compared."""
        return frozenset()

    @property
    def bands(self) -> int:
        """Keys per document."""
        return 1

    def keys(self) -> KeysOf:
        """The text -> keys function (of 16 bytes each, one after the other); None for a text to keep in any case."""
        raise NotImplementedError
