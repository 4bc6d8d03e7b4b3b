"""Field paths: one meaning in every format, adapter, cleaning step and join."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corpus.build import main
from corpus.cleaning.decontamination.evalsets import read_examples
from corpus.cleaning.fields import LanguageStep, ScoreStep
from corpus.documents.adapters import FieldAdapter, QuestionAnswerAdapter
from corpus.documents.fields import readings, text_field, top_level, value_or_none
from corpus.documents.read import read_piece
from corpus.documents.record import BadRecord
from corpus.documents.units import WHOLE
from corpus.records.manifest import load_manifest
from tests.conftest import documents, recipe_dict, write_jsonl

SHAPES: dict[str, dict[str, Any]] = {
    "a.b.c": {"a": {"b": {"c": "x"}}},
    "a.b.c, a key": {"a.b.c": "x"},
    "a.b.c, a key of two parts": {"a.b": {"c": "x"}},
    "a.b.c, a key of two parts inside": {"a": {"b.c": "x"}},
    "a.b.c, the longer key has it not": {"a.b": {"d": "y"}, "a": {"b": {"c": "x"}}},
    "a.b.c, the longer key is none to descend into": {"a.b": "y", "a": {"b.c": "x"}},
    "a.b.c, as it stands before all": {"a.b.c": "x", "a.b": {"c": "y"}, "a": {"b.c": "y", "b": {"c": "y"}}},
    "a.b.c, the longer key before the shorter": {"a.b": {"c": "x"}, "a": {"b.c": "y", "b": {"c": "y"}}},
    "a.1.c, a list": {"a": [{"c": "y"}, {"c": "x"}]},
    "a.1.c, a key that is a number": {"a": {"1": {"c": "x"}}},
    "a.b.1, a list at the end": {"a.b": ["y", "x"]},
    "text": {"text": "x"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_path_means_the_same_everywhere(tmp_path: Path, shape: str) -> None:
    path, record = shape.split(",")[0], SHAPES[shape]
    lines = write_jsonl(tmp_path / "x.jsonl", [record])
    pq.write_table(pa.Table.from_pylist([record | {"unread": 1}]), tmp_path / "x.parquet")
    step = ScoreStep(field=path, minimum=0).function(), LanguageStep(field=path, languages=("x",)).function()
    for file, file_format in ((lines, "jsonl"), (tmp_path / "x.parquet", "parquet")):
        [(_, found)] = read_piece(file, file.name, file_format, 0, WHOLE, [path])  # type: ignore[arg-type]
        assert isinstance(found, dict) and FieldAdapter(field=path).function()(found) == "x"
        assert "unread" not in found
        asked = QuestionAnswerAdapter(question=path, answer=path, template="{question}{answer}")
        assert asked.function()(found) == "xx"
        document = type("Document", (), {"metadata": found})
        assert [check(document) for check in step] == ["score.missing", None]  # type: ignore[arg-type]
        [(_, text)] = read_examples(file, [path])
        assert text == ["x"]
        assert FieldAdapter(field=path).function()(top_level(found, [path])) == "x"


@pytest.mark.parametrize("path", ["a.b.d", "a.b.c.d", "a.9.c", "b", "", ".", "a..b", "a.b.c."])
def test_a_path_that_leads_nowhere_is_a_missing_field(path: str) -> None:
    record = {"a": {"b": {"c": "x"}}, "a.b": ["y"]}
    with pytest.raises(BadRecord, match="missing_field"):
        text_field(record, path)
    assert value_or_none(record, path) is None


def test_token_ids_are_no_text() -> None:
    with pytest.raises(BadRecord, match="token_ids"):
        text_field({"text": [1, 2, 3]}, "text")
    with pytest.raises(BadRecord, match="not_text"):
        text_field({"text": ["a"]}, "text")


@given(
    st.recursive(
        st.integers(0, 9),
        lambda inner: st.dictionaries(st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a"]), inner, max_size=3),
        max_leaves=6,
    ).filter(lambda value: isinstance(value, dict)),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=5).map(".".join),
)
def test_parts_that_are_read_of_a_record_and_of_a_column_are_enough(record: dict[str, Any], path: str) -> None:
    whole = value_or_none(record, path)
    assert value_or_none(top_level(record, [path]), path) == whole
    assert next(iter(readings(path))) == (path, "")
    for key, rest in readings(path):
        assert ".".join(filter(None, (key, rest))) == path


def test_maps_are_descended_into(tmp_path: Path) -> None:
    table = pa.table({"meta": pa.array([[("lang", "en"), ("id", "7")], []], pa.map_(pa.string(), pa.string()))})
    pq.write_table(table, tmp_path / "x.parquet")
    records = [record for _, record in read_piece(tmp_path / "x.parquet", "x", "parquet", 0, WHOLE, ["meta.lang"])]
    assert [value_or_none(record, "meta.lang") for record in records] == ["en", None]  # type: ignore[arg-type]


@pytest.mark.parametrize("cleaning", [[], [{"step": "score", "field": "page.score", "minimum": 1}]])
def test_a_build_reads_flat_and_nested_columns_alike(tmp_path: Path, cleaning: list[dict[str, Any]]) -> None:
    (tmp_path / "in").mkdir()
    texts = [record["text"] for record in documents(30)]
    nested = pa.array([{"text": text, "score": 2, "html": "<p>"} for text in texts])
    pq.write_table(
        pa.table({"page": nested, "page.score": pa.array([None] * 30, pa.int64())}), tmp_path / "in/n.parquet"
    )
    pq.write_table(pa.table({"page.text": texts, "page.score": [2] * 30}), tmp_path / "in/f.parquet")
    recipe = recipe_dict({"a": ["in/*"]}, cleaning=cleaning)
    recipe["sources"]["a"] |= {"format": "parquet", "adapter": {"shape": "field", "field": "page.text"}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    main([str(tmp_path / "small.yaml"), "--out", str(tmp_path / "data"), "--workers", "1"])
    found = load_manifest(tmp_path / "data" / "small").sources["a"].documents
    # A null under the key as it stands is what counts.
    dropped = {"score.missing": 30} if cleaning else {}
    assert (found.kept, found.dropped) == (60 - sum(dropped.values()), dropped)
