"""Formats by name: guessed where nothing is said, refused where they are not read or contradict what is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from corpus.base.errors import UserError
from corpus.build import main
from corpus.documents.formats import format_of
from corpus.records.manifest import load_manifest
from tests.conftest import documents, recipe_dict, run_command, user_error, write_jsonl


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a.jsonl"], "jsonl"),
        (["a.json.gz", "b/c.ndjson.zst", "d.jsonl.xz"], "jsonl"),
        (["A.JSONL.GZ"], "jsonl"),
        (["part-00000", "x.lst", "y.zst", ".hidden"], "jsonl"),
        (["v1.5/part-00000", "x.jsonl"], "jsonl"),
        (["a.txt", "b.txt.bz2"], "text"),
        (["a.parquet"], "parquet"),
    ],
)
def test_names_stand_for_a_format(names: list[str], found: str) -> None:
    assert format_of(names, None, "s") == found


@pytest.mark.parametrize(
    ("names", "given", "says"),
    [
        (["b.jsonl", "a.csv"], None, r"a\.csv is a table.*Convert"),
        (["a.tsv.gz"], "jsonl", r"a\.tsv\.gz is a table"),
        (["a.csv"], "parquet", r"a\.csv is a table"),
        (
            ["d/data-00000-of-00002.arrow"],
            None,
            r"d/data-00000-of-00002\.arrow is of a format that is not read.*Convert",
        ),
        (["index.json", "shard.00000.mds.zstd"], None, r"shard\.00000\.mds\.zstd is a shard of a ready-made MDS.*text"),
        (["shard.00000.mds"], "text", r"shard\.00000\.mds is a shard"),
        (["tokens.npy"], None, r"tokens\.npy is no text: token ids"),
        (["a.tar.gz"], None, r"a\.tar\.gz is an archive"),
        (["a.zip"], "jsonl", r"a\.zip is an archive"),
        (["a.jsonl.lz4"], None, r"a\.jsonl\.lz4 is of a compression"),
        (["a.parquet.gz"], None, r"a\.parquet\.gz is parquet inside"),
        (["a.jsonl", "b.txt"], None, r"a\.jsonl is of the format 'jsonl', and b\.txt of 'text'"),
        (["a.parquet", "b.jsonl"], None, r"a\.parquet is .*'parquet', and b\.jsonl of 'jsonl'"),
        (["a.parquet", "README"], None, r"README cannot be of the format 'parquet'"),
        (["a.parquet"], "jsonl", r"a\.parquet cannot be of the format 'jsonl'.*`format` to parquet"),
        (["a.jsonl"], "parquet", r"a\.jsonl cannot be of the format 'parquet'.*`format` to jsonl"),
        (["a.jsonl.gz"], "text", r"a\.jsonl\.gz cannot be of the format 'text'.*`format` to jsonl"),
        (["a.parquet"], "text", r"a\.parquet cannot be of the format 'text'"),
    ],
)
def test_names_that_are_refused(names: list[str], given: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"s: {says}"):
        format_of(names, given, "s")


@pytest.mark.parametrize("names", [["a.py", "b.md", "c.json", "d.csv", "e", "f.txt"]])
def test_any_text_may_be_a_text(names: list[str]) -> None:
    assert format_of(names, "text", "s") == "text"
    assert format_of(["a.txt", "b"], "jsonl", "s") == "jsonl"


def test_a_build_reads_each_source_by_its_names(tmp_path: Path) -> None:
    texts = [record["text"] for record in documents(40)]
    write_jsonl(tmp_path / "lines.json", documents(40))
    (tmp_path / "book.txt").write_text("\n".join(texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "table.parquet")
    recipe = tmp_path / "small.yaml"
    names = {"lines": ["lines.json"], "book": ["book.txt"], "table": ["table.parquet"]}
    recipe.write_text(yaml.safe_dump(recipe_dict(names), sort_keys=False))
    main([str(recipe), "--out", str(tmp_path / "data"), "--workers", "1"])
    kept = {name: source.documents.kept for name, source in load_manifest(tmp_path / "data/small").sources.items()}
    assert kept == {"lines": 40, "book": 1, "table": 40}


def test_an_empty_source_says_what_became_of_its_records(tmp_path: Path) -> None:
    from tests.hub_fixtures import small_tokenizer

    (tmp_path / "tokenizer.json").write_bytes(small_tokenizer())
    write_jsonl(
        tmp_path / "a.jsonl", [{"body": "x"}] * 1500 + [{"text": ""}] * 2 + [{"text": [5, 6]}] * 3 + [{"text": "x"}]
    )
    tokenizer = {"kind": "file", "path": "tokenizer.json", "bos_token": "<s>"}
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(recipe_dict({"a": ["a.jsonl"]}, tokenizer=tokenizer), sort_keys=False))
    line = user_error(run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--workers", "1"))
    said = "1,506 records read, 1 kept, the others dropped (missing_field 1,500, token_ids 3, empty 2)"
    assert f"source 'a': yields less than one sample of 33 tokens: {said}" in line
