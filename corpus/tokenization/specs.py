"""The `tokenizer` of a recipe: trained on its own text, or a given one.

A trained one follows its sources: change one, and the next build has another tokenizer and makes all streams anew. To
freeze it, copy its folder out of the data folder (`data/tokenizers/bpe8192-...`) and name it in the recipe:

    tokenizer: {kind: file, path: my-tokenizer, bos_token: "<|begin_of_text|>", eos_token: "<|end_of_text|>"}
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from corpus.base.config import Strict


class TrainTokenizer(Strict):
    """Train a byte-level BPE on the recipe's own sources, as the build's first step; each must have some text.

    It is trained anew whenever a source or a key here changes, and all streams are made anew with it. To freeze one,
    copy its folder out of the data folder and use `{kind: file, path: FOLDER, bos_token: "<|begin_of_text|>",
    eos_token: "<|end_of_text|>"}`.
    """

    kind: Literal["train"] = "train"
    vocab_size: int = Field(ge=512, le=1 << 20)
    """Size of the vocabulary, special tokens included."""
    max_bytes_per_source: int = Field(default=8 << 20, ge=1 << 16)
    """Text taken from the front of each source for training, in bytes of UTF-8."""


class _GivenTokenizer(Strict):
    """What a tokenizer.json made elsewhere needs to be told."""

    bos_token: str | None = None
    """The special token that starts a document; needed when `boundary` is bos or both."""
    eos_token: str | None = None
    """The special token that ends a document; needed when `boundary` is eos or both."""
    allow_lossy: bool = False
    """Build with a tokenizer that loses text (unknown characters, spaces), which is refused otherwise; the records
    then name a text of which something is lost. What its normalizer changes is no loss."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that do not allow it keep the fingerprint they had before there was such a key.
        return {name: value for name, value in handler(self).items() if name != "allow_lossy" or value}


class FileTokenizer(_GivenTokenizer):
    """A `tokenizer.json` on disk."""

    kind: Literal["file"] = "file"
    path: str
    """The file or its folder; relative to the recipe's folder. A copy of a trained one freezes that."""


class HubTokenizer(_GivenTokenizer):
    """A `tokenizer.json` of a Hugging Face repository at a pinned revision."""

    kind: Literal["hub"] = "hub"
    repo: str
    """`owner/name` of a model repository."""
    revision: str
    """Commit hash; a branch is resolved once per data folder (again with --refresh), and its commit recorded."""


class LlamaModelsTokenizer(Strict):
    """The Llama 3 or Llama 4 tokenizer shipped inside the `llama-models` package (under Meta's licence)."""

    kind: Literal["llama-models"] = "llama-models"
    name: Literal["llama3", "llama4"]
    """llama3 has 128,256 ids, llama4 202,048."""


TokenizerSpec = Annotated[
    TrainTokenizer | FileTokenizer | HubTokenizer | LlamaModelsTokenizer, Field(discriminator="kind")
]


def shown(spec: TokenizerSpec) -> str:
    """What messages call a recipe's tokenizer."""
    if isinstance(spec, FileTokenizer):
        return spec.path
    if isinstance(spec, HubTokenizer):
        return spec.repo
    return "trained here" if isinstance(spec, TrainTokenizer) else spec.name
