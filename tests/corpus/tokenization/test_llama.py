"""The converted Llama tokenizers against the package's own tiktoken encodings: equal ids, equal special tokens."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import random
import subprocess
import sys
import sysconfig
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.base.errors import UserError
from corpus.tokenization.engine import FastEngine, ReferenceEngine
from corpus.tokenization.llama import LlamaFacts, LlamaName, find_llama_model, read_llama
from corpus.tokenization.probes import TRICKY

EXPECTED = {"llama3": (128_000, 128_256), "llama4": (200_000, 202_048)}


@pytest.fixture(scope="module", params=["llama3", "llama4"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, LlamaFacts]:
    """(the package's tokenizer, our tokenizer.json, its facts)."""
    pytest.importorskip("tiktoken", reason="tiktoken is the judge of the conversion")
    package = pytest.importorskip(
        f"llama_models.{request.param}.tokenizer", reason="llama-models holds the vocabularies"
    )
    out = tmp_path_factory.mktemp("llama") / "tokenizer.json"
    text, facts = read_llama(request.param)
    out.write_text(text, encoding="utf-8")
    return package.Tokenizer.get_instance(), out, facts


def sample() -> list[str]:
    """Texts to disagree on: every kind of character beside letters, digits and line ends; long runs; real code.

    Characters are those of Unicode 3.2: engines with tables of different age differ on characters added since.
    """
    chance = random.Random(11)
    codes = [*range(0x3100), *range(0x3100, 0x110000, 29)]
    characters = [char for char in map(chr, codes) if unicodedata.ucd_3_2_0.category(char) not in ("Cn", "Co", "Cs")]
    texts = [*TRICKY]
    for low in range(0, len(characters), 100):
        texts.append("".join(f"a{char} {char}B{char}{char}\n{char}1" for char in characters[low : low + 100]))
    for run in [" ", "\n", "\r\n", "a", "=", "0", "\u00e9", "\u4e2d", " \n", "ab", "aba", "\U0001f600", "\u00a0", "'s"]:
        texts += [run * count + "x" for count in (1, 2, 3, 4, 5, 8, 13, 64, 83, 257)]
    pieces = [
        "a",
        "aa",
        " ",
        "  ",
        "\n",
        "\r\n",
        "1",
        "22",
        "'s",
        "'LL",
        "'\u017f",
        "e\u0301",
        "\u0645\u0631",
        "\u05e9",
        "\u0634",
    ]
    pieces += [
        "\u4e2d",
        "\U0001f469\u200d\U0001f467",
        "\U0001f1e9\U0001f1ea",
        "/",
        "#",
        "\u2026",
        "\u2003",
        "\u200f",
        "\u01c5",
        "\u00b2",
    ]
    texts += ["".join(chance.choices(pieces, k=chance.randrange(1, 40))) for _ in range(800)]
    texts += [bytes(chance.choices(range(256), k=80)).decode("utf-8", "replace") for _ in range(200)]
    library = Path(sysconfig.get_path("stdlib"))
    return texts + [path.read_text("utf-8", "replace") for path in sorted(library.glob("[a-g]*.py"))[:12]]


def test_both_engines_give_the_ids_of_tiktoken(converted: tuple[Any, Path, LlamaFacts]) -> None:
    judge, path, _ = converted
    texts = sample()
    wanted = [judge.model.encode_ordinary(text) for text in texts]
    for engine in (ReferenceEngine(path.read_text("utf-8")), FastEngine(path.read_text("utf-8"))):
        ids, lengths = engine.encode_batch(texts)
        ends = np.cumsum(lengths)
        for text, want, end, length in zip(texts, wanted, ends, lengths, strict=True):
            assert ids[end - length : end].tolist() == want, (engine.name, text[:200])


def test_special_tokens_and_facts_are_the_packages(converted: tuple[Any, Path, LlamaFacts]) -> None:
    judge, path, facts = converted
    data = json.loads(path.read_text("utf-8"))
    assert {token["content"]: token["id"] for token in data["added_tokens"]} == judge.special_tokens
    assert all(token["special"] for token in data["added_tokens"])
    assert (facts.bos_id, facts.eos_id, facts.vocab_size) == (judge.bos_id, judge.eos_id, judge.n_words)
    assert (facts.bos_id, facts.vocab_size) in EXPECTED.values()
    assert (facts.bos_token, facts.eos_token) == ("<|begin_of_text|>", "<|end_of_text|>")
    assert facts.package_version == importlib.metadata.version("llama-models")


def test_loads_as_it_is_adds_no_ids_and_decodes(converted: tuple[Any, Path, LlamaFacts]) -> None:
    from tokenizers import Tokenizer

    judge, path, facts = converted
    tokenizer = Tokenizer.from_file(str(path))
    assert tokenizer.get_vocab_size() == facts.vocab_size
    text = " caf\u00e9  \U0001f600\n\tx"
    ids = tokenizer.encode(text).ids
    assert ids == judge.model.encode_ordinary(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("<|end_of_text|>").ids == [facts.eos_id]


@pytest.mark.parametrize("name", ["llama3", "llama4"])
def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch, name: LlamaName) -> None:
    def absent(package: str) -> None:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match="pip install llama-models"):
        read_llama(name)


class _Package:
    """An installed distribution with a given folder."""

    version = "9.9"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, name: str) -> Path:
        return self.folder / name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not hold llama_models/llama3"),
        (b"IQ== 0\nIg== 2\n", "ranks 0 to 127999"),
        (b"?? x\n", "cannot be read"),
    ],
)
def test_a_package_with_another_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, says: str
) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: _Package(tmp_path))
    if content is not None:
        (tmp_path / "llama_models/llama3").mkdir(parents=True)
        (tmp_path / "llama_models/llama3/tokenizer.model").write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_llama("llama3")


def test_the_package_is_not_imported() -> None:
    try:
        find_llama_model("llama3")
    except UserError as error:
        pytest.skip(str(error))
    code = (
        "import sys; from corpus.tokenization.llama import find_llama_model; find_llama_model('llama3');"
        "print([name for name in ('llama_models', 'torch', 'tiktoken', 'numpy') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
