"""What the catalogue says of a source: where its files are, what a record looks like, and on what terms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from corpus.base.config import Strict
from corpus.documents.readable import Readable


class Published(Strict):
    """Counts the papers or cards print for this source."""

    table: Literal["pretraining", "midtraining", "posttraining", "upstream"] = "upstream"
    """Which table of the MobileLLM papers prints the numbers; upstream is the dataset's own card or a count of it."""
    rows: int | None = None
    """Records."""
    tokens: int | None = None
    """Tokens, by the tokenizer that the reference used."""
    bytes: int | None = None
    """Download size in bytes, where known."""
    reference: str
    """Where the numbers are printed."""


class Source(Readable):
    """An upstream dataset at a pinned revision, and how its records become training text."""

    licence: str
    """SPDX identifier where there is one, else the licence's name."""
    licence_url: str | None = None
    """Where its text can be read."""
    redistributable: bool = True
    """False: streams made from this source must not be published."""
    published: list[Published] = []
    """What the papers and cards count; used by plans and reference manifests."""
    notes: list[str] = []
    """Anomalies and choices that apply, in our words."""
    homepage: str | None = None
    """Where people read about it."""
    stand_in_for: str | None = None
    """Set on a source that can replace another one; used only when a recipe or --stand-ins asks for it."""
    approx_bytes_per_token: float = Field(default=4.0, gt=0)
    """Bytes of text per token, used for estimates before anything is tokenised."""
    estimated_tokens: int | None = None
    """Our own estimate of the tokens, for plans only, where nobody has published a count."""
