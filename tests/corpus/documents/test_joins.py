"""Joins: two aligned files (PIQA) and questions kept in other datasets (OpenCodeReasoning-2)."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import corpus.documents.joins
from corpus.base.errors import UserError
from corpus.catalogue.load import load_catalogue
from corpus.documents.joins import input_origins, prepare
from corpus.documents.prepare import Lookup
from corpus.documents.record import BadRecord

HOST = "raw.githubusercontent.com/ybisk/ybisk.github.io/master/piqa/data"


def lines(path, *records):
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records))
    return path


def table(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def read(parts):
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def texts(source, parts):
    """Texts, and the reasons of the records that gave none, as a build would count them."""
    text_of, found, dropped = source.adapter.function(), [], Counter()
    for record in read(parts):
        try:
            found.append(text_of(record))
        except BadRecord as bad:
            dropped[bad.reason] += 1
    return found, dropped


PIQA = [
    {"goal": "Open a jar", "sol1": "turn the lid", "sol2": "shout"},
    {"goal": "Dry a cup", "sol1": "fill it", "sol2": "wipe it"},
]


def piqa_files(folder, records, labels):
    return {
        f"{HOST}/train.jsonl": lines(folder / "train.jsonl", *records),
        f"{HOST}/train-labels.lst": lines(folder / "labels.lst", *labels),
    }


def test_aligned_lines(tmp_path):
    source = load_catalogue()["piqa"]
    parts = prepare(source, piqa_files(tmp_path, PIQA, ["0", "1"]), tmp_path / "out")
    assert texts(source, parts)[0] == [
        "Question: Open a jar\nAnswer: turn the lid",
        "Question: Dry a cup\nAnswer: wipe it",
    ]


def test_an_unreadable_line_is_dropped_and_counted_without_shifting_the_labels(tmp_path):
    source = load_catalogue()["piqa"]
    parts = prepare(source, piqa_files(tmp_path, [PIQA[0], "{broken", PIQA[1]], ["0", "1", "1"]), tmp_path / "out")
    found, dropped = texts(source, parts)
    assert found[1] == "Question: Dry a cup\nAnswer: wipe it"
    assert dropped == {"missing_field": 1}
    assert json.loads((tmp_path / "out/prepared.json").read_text()) == {"records": 2, "unreadable": 1}


@pytest.mark.parametrize("labels", [["0"], ["0", "1", "0"]])
def test_files_that_do_not_align_are_refused_and_leave_nothing(tmp_path, labels):
    source = load_catalogue()["piqa"]
    with pytest.raises(UserError, match=r"train\.jsonl: and .*train-labels\.lst differ in their number of lines"):
        prepare(source, piqa_files(tmp_path, PIQA, labels), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "labels.lst", "train.jsonl"]


def test_a_missing_file_is_refused(tmp_path):
    source = load_catalogue()["piqa"]
    with pytest.raises(UserError, match="needs as many files"):
        prepare(source, {f"{HOST}/train.jsonl": lines(tmp_path / "a", *PIQA)}, tmp_path / "out")


def row(dataset, split, index, number):
    return {
        "question": "-", "r1_generation": f"<think></think>answer {number}", "qwq_critique": "long", "dataset": dataset,
        "split": split, "index": str(index), "license": "cc-by-4.0",
    }  # fmt: skip


@pytest.fixture
def code_files(tmp_path):
    forces = {
        "description": "Add.", "input_format": "two numbers", "output_format": "", "note": None,
        "examples": [{"input": "1 2", "output": "3"}],
    }  # fmt: skip
    return {
        "taco:ALL/train-00000-of-00002.parquet": table(tmp_path / "t0", {"question": "taco 0"}, {"question": "taco 1"}),
        "taco:ALL/train-00001-of-00002.parquet": table(tmp_path / "t1", {"question": "taco 2"}),
        "taco:ALL/test-00000-of-00001.parquet": table(tmp_path / "t2", {"question": "taco test"}),
        "apps:train.jsonl": lines(tmp_path / "a0", {"question": "apps 0"}, "not json", {"question": "apps 2"}),
        "apps:test.jsonl": lines(tmp_path / "a1", {"question": "apps test"}),
        "code_contests:data/train-00000-of-00001-aa.parquet": table(tmp_path / "c0", {"description": "cc 0"}),
        "code_contests:data/valid-00000-of-00001-bb.parquet": table(tmp_path / "c1", {"description": ""}),
        "code_contests:data/test-00000-of-00001-cc.parquet": table(tmp_path / "c2", {"description": "cc test"}),
        "open-r1/codeforces:data/train-00000-of-00001.parquet": table(tmp_path / "f0", forces),
        "open-r1/codeforces:data/test-00000-of-00001.parquet": table(tmp_path / "f1", {"description": "cf test"}),
        "train/cpp/train-0.parquet": table(tmp_path / "o0", row("open-r1/codeforces", "train", 0, 0)),
        "train/python/train-0.parquet": table(
            tmp_path / "o1",
            row("taco", "train", 2, 1),
            row("apps", "train", 2, 2),
            row("code_contests", "train", 0, 3),
            row("code_contests", "valid", 0, 4),
            row("taco", "train", 99, 5),
            row("elsewhere", "train", 0, 6),
        ),
    }


def test_recovered_questions(tmp_path, code_files):
    source = load_catalogue()["open_code_reasoning_2"]
    assert set(input_origins(source)) == {"taco", "apps", "code_contests", "open-r1/codeforces"}
    parts = prepare(source, code_files, tmp_path / "out")
    found, dropped = texts(source, parts)
    assert found == [
        "User: Add.\n\nInput\n\ntwo numbers\n\nExamples\n\nInput\n\n1 2\n\nOutput\n\n3\n\n"
        "Assistant: <think></think>answer 0",
        "User: taco 2\n\nAssistant: <think></think>answer 1",
        "User: apps 2\n\nAssistant: <think></think>answer 2",
        "User: cc 0\n\nAssistant: <think></think>answer 3",
    ]
    assert dropped == {"question_not_recovered": 3}
    assert json.loads((tmp_path / "out/prepared.json").read_text()) == {
        "records": 7,
        "recovered": 4,
        "not_recovered": {"code_contests": 1, "taco": 1, "unknown dataset": 1},
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["part-00000.jsonl", "prepared.json"]


def test_a_dataset_that_was_not_fetched_is_refused(tmp_path, code_files):
    del code_files["apps:test.jsonl"]
    with pytest.raises(UserError, match=r"no file of 'apps' matches 'test\.jsonl'"):
        prepare(load_catalogue()["open_code_reasoning_2"], code_files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused_by_name(tmp_path, code_files):
    damaged = code_files["train/python/train-0.parquet"]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train/python/train-0\.parquet: the file is cut off or damaged"):
        prepare(load_catalogue()["open_code_reasoning_2"], code_files, tmp_path / "out")


def test_parts_are_bounded_equal_and_written_once(tmp_path, code_files, monkeypatch):
    source = load_catalogue()["open_code_reasoning_2"]
    whole = prepare(source, code_files, tmp_path / "whole")
    monkeypatch.setattr(corpus.documents.joins, "PART_BYTES", 150)
    parts = prepare(source, dict(reversed(code_files.items())), tmp_path / "small")
    assert len(parts) > 3 and b"".join(part.read_bytes() for part in parts) == whole[0].read_bytes()
    assert prepare(source, {}, tmp_path / "small") == parts


def test_a_lookup_of_another_number_of_rows_is_refused(tmp_path, code_files):
    """A row more or less would give every later record another's question."""
    source = load_catalogue()["open_code_reasoning_2"]

    def expecting(**rows):
        lookup = source.prepare.lookups["taco"].model_copy(update={"rows": rows})
        lookups = {**source.prepare.lookups, "taco": lookup}
        return source.model_copy(update={"prepare": source.prepare.model_copy(update={"lookups": lookups})})

    with pytest.raises(UserError, match=r"'taco'.*split 'train' has 3 rows, but 4 when the questions were numbered"):
        prepare(expecting(train=4), code_files, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    parts = prepare(expecting(train=3, test=1), code_files, tmp_path / "out")
    assert len(texts(source, parts)[0]) == 4


def test_row_counts_are_optional_and_name_splits():
    lookup = {"origin": {"kind": "files", "paths": ["*"]}, "format": "jsonl", "splits": {"train": "*"}, "question": "q"}
    # A join that has none keeps its key.
    assert "rows" not in Lookup.model_validate(lookup).model_dump(mode="json")
    assert Lookup.model_validate({**lookup, "rows": {"train": 3}}).model_dump(mode="json")["rows"] == {"train": 3}
    with pytest.raises(ValueError, match="rows names 'test', which is no split"):
        Lookup.model_validate({**lookup, "rows": {"test": 3}})
