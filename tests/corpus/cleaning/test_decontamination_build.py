"""Decontamination in a build: evaluation sets by name, and the report of what was dropped for which example."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from corpus.catalogue.load import load_catalogue, load_evaluations
from corpus.cleaning.decontamination.step import DecontaminateStep
from corpus.records.manifest import load_manifest
from corpus.records.stream import load_stream
from tests.conftest import documents, run_command, user_error, write_jsonl
from tests.corpus.test_build import build, tree_hashes
from tests.loopback_hub import LoopbackHub

MakeRecipe = Callable[..., Path]

QUESTION = "Natalia sold clips to forty eight of her friends in April and then she sold half as many in May"
BOXES = "A crate holds nine rows of seven jars while every second jar weighs as much as three small tins together"
BOXES_FILE = "boxes\x1b[2J.jsonl"
"""Its name would clear a terminal."""
EXAMPLE = "gsm8k-main-test-00000-of-00001.parquet"
ONLY_A = {"a": {"source": "a", "weight": 1}}


def parquet(*questions: str) -> bytes:
    """The bytes of a GSM8K file with these questions."""
    out = io.BytesIO()
    pq.write_table(pa.table({"question": list(questions), "answer": ["#### 72"] * len(questions)}), out)
    return out.getvalue()


@pytest.fixture
def recipe(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """A recipe over 200 clean documents and three that hold test questions of GSM8K or of a file beside the recipe."""
    step = {"step": "decontaminate", "against": ["gsm8k", "own/*.jsonl"]}
    path = make_recipe(cleaning=[step], mixture=ONLY_A)
    write_jsonl(tmp_path / "own" / BOXES_FILE, [{"text": BOXES}])
    clean = documents(200, seed=1)
    dirty = [f"Quiz! {QUESTION.upper()}?", f"{BOXES}. {QUESTION}.", f"So: {BOXES}"]
    rows = [*clean[:50], *({"text": text} for text in dirty[:2]), *clean[50:], {"text": dirty[2]}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    return path


def test_a_build_fetches_the_sets_a_step_names_and_inspect_lists_the_hits(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = load_evaluations()["gsm8k"].origin
    assert origin.kind == "hub"
    with LoopbackHub(tmp_path / "hub") as hub:
        for variable, value in hub.environment().items():
            monkeypatch.setenv(variable, value)
        files = {"main/test-00000-of-00001.parquet": parquet("Too short", QUESTION), "main/train-0.parquet": b"x"}
        hub.add_dataset(origin.repo, files, revision=origin.revision)
        out = tmp_path / "data"
        manifest = build(recipe, out, "--keep-removed", "--delete-downloads")
        assert hub.count("test-00000", "GET") > 0 and hub.count("main/train-0.parquet", "GET") == 0
    assert manifest.sources["a"].documents.dropped == {"contaminated": 3}
    stream = (out / "small" / manifest.sources["a"].stream).resolve()
    seen = [(one.name, one.examples, one.detectable, one.undetectable) for one in manifest.sources["a"].evaluations]
    assert seen == [(BOXES_FILE, 1, 1, 0), (EXAMPLE, 2, 1, 1)]
    report = (out / "small" / "report.html").read_text()
    assert "What decontamination can see (2)" in report and EXAMPLE in report

    shown = run_command("-m", "corpus.inspect", str(stream), "--hits", "--json")
    [listed] = json.loads(shown.stdout).values()
    examples = [[hit["example"] for hit in document["hits"]] for document in listed]
    assert examples == [[f"{EXAMPLE}:2"], [f"{BOXES_FILE}:1", f"{EXAMPLE}:2"], [f"{BOXES_FILE}:1"]]
    assert listed[0]["hits"][0]["ngram"] == " ".join(QUESTION.lower().split()[:13])
    assert len([*stream.rglob("contamination.jsonl")]) <= 2 < len([*(stream / "units").iterdir()])
    for path in (stream, out / "small"):
        plain = run_command("-m", "corpus.inspect", str(path), "--hits").stdout
        assert "a: 3 documents dropped" in plain and f"{EXAMPLE}:2 at character 6: natalia" in plain
        assert "\x1b" not in plain

    removed = [
        json.loads(line)
        for path in sorted((out / "removed").rglob("*.jsonl.zst"))
        for line in zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines()
    ]
    assert [(row["id"], row["hits"]) for row in removed] == [(row["id"], row["hits"]) for row in listed]

    # The hub is gone: what was fetched before still serves, and a mirror gives the same streams, byte by byte.
    assert build(recipe, out, "--offline").fingerprint == manifest.fingerprint
    other = build(recipe, tmp_path / "other", "--mirror", str(tmp_path / "hub"), "--workers", "1")
    assert other.fingerprint == manifest.fingerprint
    assert tree_hashes(tmp_path / "other") == tree_hashes(out)

    for path in stream.rglob("contamination.jsonl"):
        path.unlink()
    assert "of the 2 documents" in user_error(run_command("-m", "corpus.inspect", str(stream), "--hits"))


def test_a_build_says_what_decontamination_cannot_see(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    step = {"step": "decontaminate", "against": ["own/*.jsonl"]}
    recipe = make_recipe(cleaning=[step], mixture=ONLY_A)
    short = {"question": "Why is the sky blue", "id": BOXES, "answer": "C"}
    write_jsonl(tmp_path / "own/set.jsonl", [short, {"question": BOXES}, short])
    # The id of an example is no text of it.
    write_jsonl(tmp_path / "a.jsonl", [*({"text": text} for text in (BOXES, QUESTION)), *documents(200, seed=1)])
    command = ("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"))
    done = run_command(*command)
    assert done.returncode == 0
    assert "warning: 2 of the 3 examples of set.jsonl cannot be found by decontamination" in done.stderr
    assert load_manifest(tmp_path / "data/small").sources["a"].documents.dropped == {"contaminated": 1}
    assert "warning" not in run_command(*command).stderr  # nothing is left to make
    write_jsonl(tmp_path / "own/short.jsonl", [short])
    error = user_error(run_command(*command))
    assert "none of the 1 examples of short.jsonl can be found" in error and "`shortest`" in error


def test_records_made_before_coverage_was_counted_keep_their_fingerprints(recipe: Path, tmp_path: Path) -> None:
    """Other evaluation files with the same content, or none written down, do not make another stream of it."""
    write_jsonl(tmp_path / "own.jsonl", [{"text": BOXES}])
    step = {"step": "decontaminate", "against": ["own.jsonl"]}
    path = tmp_path / "small.yaml"
    data = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**data, "cleaning": [step]}))
    manifest = build(path, tmp_path / "data")
    stream = load_stream((tmp_path / "data/small" / manifest.sources["a"].stream).resolve())
    assert stream.evaluations and stream.model_copy(update={"evaluations": []}).fingerprint == stream.fingerprint
    bare = {name: source.model_copy(update={"evaluations": []}) for name, source in manifest.sources.items()}
    assert manifest.model_copy(update={"sources": bare}).fingerprint == manifest.fingerprint


def test_a_name_that_is_no_evaluation_set_is_refused_before_anything_is_fetched(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(cleaning=[{"step": "decontaminate", "against": ["gms8k"]}], mixture=ONLY_A)
    error = user_error(run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data")))
    assert "no evaluation set is called 'gms8k'" in error and "Did you mean 'gsm8k'?" in error


def test_a_set_that_cannot_be_read_is_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    recipe = make_recipe(cleaning=[{"step": "decontaminate", "against": ["mmlu"]}], mixture=ONLY_A)
    options = ("--out", str(tmp_path / "data"), "--mirror", str(tmp_path / "mirror"))
    assert "evaluation set mmlu" in user_error(run_command("-m", "corpus.build", str(recipe), *options))


def test_names_stay_names_and_only_relative_paths_move(tmp_path: Path) -> None:
    step = DecontaminateStep(against=("gsm8k", "eval.jsonl", "/elsewhere/a.txt", "sets/*", "arc_easy")).at(tmp_path)
    moved = (str(tmp_path / "eval.jsonl"), "/elsewhere/a.txt", str(tmp_path / "sets/*"))
    assert step.against == ("gsm8k", *moved, "arc_easy")
    assert step.names() == ("gsm8k", "arc_easy")
    files = {"gsm8k": [tmp_path / "1", tmp_path / "2"], "arc_easy": []}
    assert step.with_files(files).against == (str(tmp_path / "1"), str(tmp_path / "2"), *moved)


def test_evaluation_sets_are_apart_from_what_is_trained_on() -> None:
    catalogue, sets = load_catalogue(), load_evaluations()
    assert {"gsm8k", "math500", "humaneval", "mbpp", "mmlu", "arc_easy", "arc_challenge", "hellaswag"} <= sets.keys()
    assert "mmlu" not in catalogue and catalogue["gsm8k"] != sets["gsm8k"]
    for name, source in sets.items():
        assert source.licence and source.homepage, name
        assert DecontaminateStep(against=(name,)).names() == (name,)
        files = source.origin.files if source.origin.kind == "hub" else source.origin.urls
        assert not any("train" in pattern for pattern in files), name
        if source.origin.kind == "hub" and source.origin.revision == "main":
            assert source.notes, name
