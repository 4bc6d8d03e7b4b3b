"""Small copies of every source of the catalogue for the loopback hub: true layouts and field names, invented values.

    expected = fill(hub)
    expected["starcoder"].kept, expected["starcoder"].dropped, expected["starcoder"].files

Files lie where the catalogue's globs look for them, in the sources' own formats and compressions, beside files that no
glob may match. Records have the inconsistencies of the originals: `metadata` of another type in each row, columns that
differ between folders, nulls where text is expected. Each source yields at least one sample of the recipes that use it.
"""

from __future__ import annotations

from typing import Any

from corpus.catalogue.load import load_catalogue
from corpus.catalogue.models import Source
from corpus.documents.joins import input_origins
from corpus.recipe.model import load_recipe
from corpus.tokenization.specs import HubTokenizer
from tests.conftest import ROOT
from tests.hub_fixtures import pretraining, tasks
from tests.hub_fixtures.shelf import Expected, Shelf, prose
from tests.loopback_hub import LoopbackHub

TOKEN = "loopback-token-that-must-not-leak"  # noqa: S105 - made up
SMALL_VOCABULARY = 450


def fill(hub: LoopbackHub) -> dict[str, Expected]:
    """Serve every source of the catalogue from ``hub``, the gated ones for TOKEN only; returns what builds count."""
    shelf = Shelf()
    for make in (*pretraining.ALL, *tasks.ALL):
        make(shelf)
    hub.tokens.add(TOKEN)
    sources = load_catalogue().values()
    origins = [origin for source in sources for origin in (source.origin, *_joined(source))]
    revisions = {origin.repo: origin.revision for origin in origins if origin.kind == "hub"}
    gated = {source.origin.repo for source in sources if source.gate and source.origin.kind == "hub"}
    for repo, files in shelf.repos.items():
        files = {".gitattributes": b"*.parquet filter=lfs\n", "README.md": f"# {repo}\n".encode(), **files}
        # The catalogue has seven digits of some commits; the hub makes up the rest, and commits of branches.
        revision = revisions[repo]
        commit = None if revision == "main" else (revision + "0123456789abcdef" * 3)[:40]
        hub.add_dataset(repo, files, revision=commit, gated=repo in gated)
    for url, data in shelf.urls.items():
        hub.add_url(url, data)
    tokenizer = load_recipe(ROOT / "recipes" / "mobilellm.yaml").tokenizer
    assert isinstance(tokenizer, HubTokenizer)
    files = {"tokenizer.json": small_tokenizer(), "config.json": b"{}"}
    hub.add_model(tokenizer.repo, files, revision=tokenizer.revision)
    return shelf.expected


def _joined(source: Source) -> list[Any]:
    return [origin for origin, _ in input_origins(source).values()]


def small_tokenizer(bos: str = "<s>", eos: str = "</s>") -> bytes:
    """A byte-level BPE with <unk> and the ends of documents first, as Llama 2's vocabulary has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL_VOCABULARY,
        special_tokens=["<unk>", bos, eos],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator([prose("tokenizer", 4000)], trainer)
    return str(model.to_str()).encode()


def revision_of(hub: LoopbackHub, source: str) -> str | None:
    """The commit a build must record for a hub source read as it is; None where it records a hash over its files."""
    entry = load_catalogue()[source]
    if entry.origin.kind != "hub" or entry.prepare is not None:
        return None
    return hub.repos["datasets", entry.origin.repo].commit
