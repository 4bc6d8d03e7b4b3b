"""Which documents a sample is made of: the ids at each place told are the document's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from corpus.records.stream import load_stream
from corpus.streams.places import _unpacked, packed_places, sample_parts
from corpus.streams.samples import read_samples
from tests.conftest import documents, recipe_dict, run_command, user_error, write_jsonl


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1 << 50), st.integers(1, 1 << 30)), max_size=9)))
def test_places_are_stored_whole(batches: list[list[tuple[int, int, int]]]) -> None:
    files = ["a:b.jsonl", "c.jsonl", "d"]
    stored = [([f"{files[f]}:{place}" for f, place, _ in batch], np.array([ids for *_, ids in batch], np.int64))
              for batch in batches]  # fmt: skip
    rows = _unpacked(packed_places(files, stored))
    assert [tuple(int(x) for x in row) for row in rows] == [each for batch in batches for each in batch]


@pytest.fixture(scope="module", params=["bos", "eos", "both"])
def build(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A build of several units, documents dropped between, ends of units joined in the tail."""
    folder = tmp_path_factory.mktemp("places")
    texts = documents(90, seed=3, words=40)
    for place in (5, 40, 41):
        texts[place]["text"] = ""
    write_jsonl(folder / "a.jsonl", texts[:50])
    write_jsonl(folder / "more" / "b.jsonl", texts[50:])
    recipe = recipe_dict(
        {"a": ["*.jsonl", "more/*.jsonl"]}, unit_bytes=1024, boundary=request.param, tokens=32 * 4 * 10,
        cleaning=[{"step": "length", "min_chars": 12}],
    )  # fmt: skip
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    result = run_command("-m", "corpus.build", str(path), "--out", str(folder / "data"), "--keep-removed")
    assert result.returncode == 0, result.stderr
    return folder, request.param


def test_every_sample_is_traced_to_its_documents(build: tuple[Path, str]) -> None:
    folder, boundary = build
    stream = next(path for path in (folder / "data" / "streams").iterdir())
    record = load_stream(stream)
    assert len(record.units) > 3 and record.samples > sum(unit.samples for unit in record.units)
    tokenizer = Tokenizer.from_file(str(folder / "data" / record.tokenizer.path / "tokenizer.json"))
    front = [record.tokenizer.bos_id] if boundary in ("bos", "both") else []
    back = [record.tokenizer.eos_id] if boundary in ("eos", "both") else []
    seen: set[str] = set()
    for sample, ids in read_samples(stream, list(range(record.samples))):
        parts = sample_parts(stream, record, sample)
        assert sum(part.length for part in parts) == len(ids)
        at = 0
        for part in parts:
            found = ids[at : at + part.length].tolist()
            at += part.length
            if not part.document:
                assert found == [record.tokenizer.bos_id] and boundary == "bos"
                continue
            file, _, place = part.document.rpartition(":")
            with next(folder.rglob(Path(file).name)).open("rb") as lines:
                lines.seek(int(place))
                text = json.loads(lines.readline())["text"]
            whole = front + tokenizer.encode(text, add_special_tokens=False).ids + back
            assert len(whole) == part.of
            assert found == whole[part.first : part.first + part.length]
            seen.add(part.document)
    assert len(seen) >= record.documents.kept - 1  # the very end may lie in the remainder


def test_the_command_tells_a_samples_documents_and_the_removed_ones(build: tuple[Path, str]) -> None:
    data = build[0] / "data"
    shown = run_command("-m", "corpus.inspect", str(data / "small"), "--sample", "0", "a")
    assert "sample 0 of a" in shown.stdout and ".jsonl:0, its ids 0-" in shown.stdout
    told = json.loads(run_command("-m", "corpus.inspect", str(data / "small"), "--sample", "0", "a", "--json").stdout)
    assert sum(part["length"] for part in told) == 33
    assert "Use 0 to" in user_error(run_command("-m", "corpus.inspect", str(data / "small"), "--sample", "9999", "a"))
    removed = json.loads(run_command("-m", "corpus.inspect", str(data / "small"), "--removed", "2", "--json").stdout)
    assert [document["reason"] for document in removed["a"]] == ["length.short", "length.short"]
    reason = user_error(run_command("-m", "corpus.inspect", str(data / "small"), "--removed", "2", "length.shor"))
    assert "Did you mean 'length.short'?" in reason


def test_rows_of_parquet_files_are_told_by_their_number(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(documents(40, seed=5)), tmp_path / "a.parquet")
    recipe = recipe_dict({"a": ["a.parquet"]})
    recipe["sources"]["a"]["format"] = "parquet"
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    result = run_command("-m", "corpus.build", str(path), "--out", str(tmp_path / "data"), "--workers", "1")
    assert result.returncode == 0, result.stderr
    (stream,) = (tmp_path / "data" / "streams").iterdir()
    assert sample_parts(stream, load_stream(stream), 0)[0].document == "a.parquet:row 0"
