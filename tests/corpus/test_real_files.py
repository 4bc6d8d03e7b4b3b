"""A build from real files, where there are any: CORPUS_REAL_FILES names their folder; any of FILES may be absent."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus.catalogue.load import load_catalogue
from corpus.records.manifest import load_manifest
from corpus.records.stream import load_stream
from corpus.streams.samples import decode_samples
from tests.conftest import recipe_dict, run_command

FOLDER = Path(os.environ.get("CORPUS_REAL_FILES") or "/nonexistent")
FILES = {
    "dolma": ("dolma_sample.jsonl.gz", "dolmino_wiki"),
    "arxiv": ("arxiv_sample.jsonl", "redpajama_arxiv"),
    "gsm8k": ("gsm8k_train.jsonl", "gsm8k"),
    "humaneval": ("HumanEval.jsonl.gz", "open_science_reasoning_2"),
    "wikitext": ("wikitext2_valid.txt", "dolmino_wiki"),
}
"""Source -> (file, the catalogue's source whose adapter reads it)."""
PRESENT = {name: entry for name, entry in FILES.items() if (FOLDER / entry[0]).is_file()}

pytestmark = pytest.mark.skipif(not PRESENT, reason="CORPUS_REAL_FILES names no folder with real files")


def records(path: Path) -> list[dict[str, Any]]:
    """All records of a file, read without the project's reader."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".txt":
        return [{"text": data.decode()}]
    return [json.loads(line) for line in data.splitlines()]


def test_real_files_are_built_and_counted(tmp_path: Path) -> None:
    recipe = recipe_dict(
        {name: [str(FOLDER / file)] for name, (file, _) in PRESENT.items()},
        tokenizer={"kind": "train", "vocab_size": 2048},
        seq_len=128,
        tokens=128 * 4 * 200,
        unit_bytes=1 << 20,
    )
    for name, (file, like) in PRESENT.items():
        source = recipe["sources"][name]
        source["adapter"] = load_catalogue()[like].adapter.model_dump()
        if name == "humaneval":
            source["adapter"] |= {
                "problem": "prompt",
                "solution": "canonical_solution",
                "template": "{problem}{solution}",
            }
        if file.endswith(".txt"):
            source["format"] = "text"
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    result = run_command("-m", "corpus.build", str(path), "--out", str(tmp_path / "data"), "--workers", "2")
    assert result.returncode == 0, result.stderr[-3000:]
    manifest = load_manifest(tmp_path / "data" / "small")
    assert str(FOLDER) not in (tmp_path / "data" / "small" / "manifest.json").read_text()
    for name, (file, _) in PRESENT.items():
        entry, found = manifest.sources[name], records(FOLDER / file)
        text_of = recipe_adapter(recipe, name)
        texts = [text_of(record) for record in found]
        assert (entry.documents.read, entry.documents.kept, entry.documents.dropped) == (len(texts), len(texts), {})
        assert entry.text_bytes == sum(len(text.encode()) for text in texts)
        stream = tmp_path / "data" / "small" / entry.stream
        record = load_stream(stream)
        assert record.tokens.boundary >= len(texts) and record.tokens.remainder < 129
        first = decode_samples(stream, record, 1)[0][1][0]
        assert first["starts"] and texts[0].startswith(first["text"][:200])
    if "gsm8k" in PRESENT:
        assert manifest.sources["gsm8k"].documents.kept == 7473


def recipe_adapter(recipe: dict[str, Any], name: str) -> Any:
    """The text function of a source of the recipe."""
    from corpus.catalogue.models import Source

    return Source.model_validate(recipe["sources"][name]).adapter.function()
