"""The `tokenizer` of a recipe: trained on its own text, or a given one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from corpus.base.config import Strict


class TrainTokenizer(Strict):
    """Train a byte-level BPE on the recipe's own sources, as the build's first step."""

    kind: Literal["train"] = "train"
    vocab_size: int = Field(ge=512, le=1 << 20)
    """Size of the vocabulary, special tokens included."""
    max_bytes_per_source: int = Field(default=8 << 20, ge=1 << 16)
    """Text taken from the front of each source for training, in bytes of UTF-8."""


class FileTokenizer(Strict):
    """A `tokenizer.json` on disk; a relative path is relative to the recipe's folder."""

    kind: Literal["file"] = "file"
    path: str
    """The file; how to freeze a tokenizer that a build trained: copy its tokenizer.json and name it here."""
    bos_token: str | None = None
    """The token that starts a document; needed when `boundary` is bos or both."""
    eos_token: str | None = None
    """The token that ends a document; needed when `boundary` is eos or both."""


class HubTokenizer(Strict):
    """A `tokenizer.json` of a Hugging Face repository at a pinned revision."""

    kind: Literal["hub"] = "hub"
    repo: str
    """Name of the repository, owner/name."""
    revision: str
    """Commit hash; a branch is resolved once per data folder."""
    bos_token: str | None = None
    """The token that starts a document; needed when `boundary` is bos or both."""
    eos_token: str | None = None
    """The token that ends a document; needed when `boundary` is eos or both."""


class LlamaModelsTokenizer(Strict):
    """The Llama 3 or Llama 4 tokenizer shipped inside the `llama-models` package (under Meta's licence)."""

    kind: Literal["llama-models"] = "llama-models"
    name: Literal["llama3", "llama4"]
    """llama3 has 128,256 ids, llama4 202,048."""


TokenizerSpec = Annotated[
    TrainTokenizer | FileTokenizer | HubTokenizer | LlamaModelsTokenizer, Field(discriminator="kind")
]
