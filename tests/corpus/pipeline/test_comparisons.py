"""Deduplication and the other cleaning steps wired into the build: who stays, who goes, same bytes from any workers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from datatrove.data import Document

from corpus.base.errors import UserError
from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.reasons import CONTAMINATED
from corpus.pipeline.unit_step import Numbered
from corpus.pipeline.verdicts import BatchStep, Verdicts, load_verdicts
from corpus.records.stream import load_stream
from tests.conftest import ROOT, documents, environment, run_command, user_error, write_jsonl
from tests.corpus.test_build import build, tree_hashes

MakeRecipe = Callable[..., Path]


@pytest.fixture
def twins(tmp_path: Path, make_recipe: MakeRecipe) -> Callable[..., Path]:
    """A recipe over a (100 documents) and b (60: 20 of them copies of a's, 10 copies inside b)."""

    def make(**changes: object) -> Path:
        recipe = make_recipe(**changes)
        a = documents(100, seed=11)
        b = documents(30, seed=12)
        write_jsonl(tmp_path / "a.jsonl", a)
        write_jsonl(tmp_path / "b.jsonl", [*b, *a[40:60], *b[:10]])
        return recipe

    return make


def test_exact_dedup_across_sources_keeps_the_first(twins: Callable[..., Path], tmp_path: Path) -> None:
    recipe = twins(cleaning=[{"step": "exact_dedup"}])
    manifest = build(recipe, tmp_path / "data")
    assert manifest.sources["a"].documents.kept == 100
    assert manifest.sources["b"].documents.dropped == {"duplicate": 30}
    other = build(recipe, tmp_path / "other", "--workers", "4")
    assert other.fingerprint == manifest.fingerprint
    assert tree_hashes(tmp_path / "other") == tree_hashes(tmp_path / "data")


def test_exact_dedup_inside_each_source(twins: Callable[..., Path], tmp_path: Path) -> None:
    manifest = build(twins(cleaning=[{"step": "exact_dedup", "scope": "source"}]), tmp_path / "data")
    assert manifest.sources["a"].documents.dropped == {}
    assert manifest.sources["b"].documents.dropped == {"duplicate": 10}


def test_removed_documents_are_kept_beside_with_their_reason(twins: Callable[..., Path], tmp_path: Path) -> None:
    steps = [{"step": "length", "min_chars": 40, "sources": ["a"]}, {"step": "exact_dedup"}]
    manifest = build(twins(cleaning=steps), tmp_path / "data", "--keep-removed")
    removed = [
        json.loads(line)
        for path in sorted((tmp_path / "data" / "removed").rglob("*.jsonl.zst"))
        for line in zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines()
    ]
    dropped = [source.documents.dropped for source in manifest.sources.values()]
    short = sum(len(d["text"]) < 40 for d in documents(100, seed=11))
    assert len(removed) == sum(sum(reasons.values()) for reasons in dropped)
    assert sum(row["reason"].startswith("length") for row in removed) == short > 0
    assert all(row["text"] for row in removed)
    # A document that a document step removed cannot be the one that stays: its copy in b does.
    late = sum(len(d["text"]) < 40 for d in documents(100, seed=11)[40:60])
    assert manifest.sources["b"].documents.dropped == {"duplicate": 30 - late}


def removed_documents(data: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((data / "removed").rglob("*.jsonl.zst"))
        for line in zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines()
    ]


def test_document_steps_run_once_and_every_pass_sees_the_same(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    question = "Natalia sold clips to forty eight of her friends in April and then she sold half as many in May"
    write_jsonl(tmp_path / "eval.jsonl", [{"question": question}])
    leaked = {"step": "special_tokens", "action": "strip", "spellings": ["<|x|>"]}
    steps = [
        {"step": "length", "min_chars": 40}, leaked, {"step": "decontaminate", "against": ["eval.jsonl"]},
        {"step": "exact_dedup"}, {"step": "regex", "pattern": "river 7"}, {"step": "minhash"},
    ]  # fmt: skip
    recipe = make_recipe(cleaning=steps, mixture={"a": {"source": "a", "weight": 1}})
    texts = [row["text"] for row in documents(300, seed=7)]
    texts += [f"{text[:50]}<|x|>{text[50:]}" for text in texts[:40]]  # rewritten, and then a copy
    texts += [f"{question} <|x|> {number}" for number in range(5)] + ["<|x|>" * 20, "<|x|>" * 30]
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    manifest = build(recipe, tmp_path / "data", "--keep-removed")

    seen: dict[str, str] = {}
    expected: list[tuple[str, str]] = []
    passed = []
    for text in texts:
        stripped = text.replace("<|x|>", "")
        if len(text) < 40:
            expected.append(("length.short", text))
        elif not stripped:
            expected.append(("empty", text))
        elif question in stripped:
            expected.append(("contaminated", stripped))
        elif stripped in seen:
            expected.append(("duplicate", stripped))
        else:
            seen[stripped] = text
            passed.append(stripped)
    expected += [("regex.pattern", text) for text in passed if "river 7" in text]
    removed = removed_documents(tmp_path / "data")
    assert sorted((row["reason"], row["text"]) for row in removed if row["reason"] != "near_duplicate") == sorted(
        expected
    )
    assert {"contaminated", "duplicate", "empty", "length.short"} <= {reason for reason, _ in expected}
    documents_of = manifest.sources["a"].documents
    assert documents_of.read == len(texts) == documents_of.kept + len(removed)
    # Named by file and byte, the document that stays is in the file, and reads the same.
    lines = (tmp_path / "a.jsonl").read_bytes()
    for row in removed:
        if row["reason"] in ("duplicate", "near_duplicate"):
            source, _, place = row["kept"].partition(": ")
            name, _, offset = place.rpartition(":")
            kept = json.loads(lines[int(offset) :].split(b"\n")[0])["text"].replace("<|x|>", "")
            assert (source, name) == ("a", "a.jsonl")
            assert row["reason"] == "near_duplicate" or kept == row["text"]
    # Names of documents are only kept when they are asked for; the streams are the same.
    other = build(recipe, tmp_path / "other")
    assert other.fingerprint == manifest.fingerprint and tree_hashes(tmp_path / "other") == tree_hashes(
        tmp_path / "data"
    )


def test_verdicts_are_given_without_running_the_step_again(tmp_path: Path) -> None:
    ref, batch = UnitRef("s", 0), [Numbered(place, Document(f"text {place}", str(place))) for place in range(5)]
    verdicts = Verdicts()
    verdicts.dropped[2] = {1: "regex.x", 4: CONTAMINATED}
    verdicts.hits[4] = [{"example": "e:1"}]
    verdicts.changed[3] = {2}
    verdicts.save(tmp_path, ref)
    again = load_verdicts(tmp_path, ref)
    assert again is not None and load_verdicts(tmp_path, UnitRef("s", 1)) is None

    def never() -> BatchStep:
        raise AssertionError("the step is not needed")

    assert again.replayed(2, never)(batch) == [None, "regex.x", None, None, CONTAMINATED]
    assert batch[4].document.metadata == {"contamination": [{"example": "e:1"}]}
    assert again.replayed(0, never)(batch) == [None] * 5
    worked_on: list[int] = []

    def rewrite(entries: list[Numbered]) -> list[str | None]:
        worked_on.extend(entry.ordinal for entry in entries)
        return [None] * len(entries)

    assert again.replayed(3, lambda: rewrite)(batch) == [None] * 5 and worked_on == [2]
    (tmp_path / "s/000000.verdicts.zst").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        load_verdicts(tmp_path, ref)


def test_a_build_stops_when_cleaning_leaves_nothing_of_a_source(twins: Callable[..., Path], tmp_path: Path) -> None:
    for number, steps in enumerate(([], [{"step": "exact_dedup"}])):
        recipe = twins(cleaning=[{"step": "language", "languages": ["en"], "sources": ["b"]}, *steps])
        done = run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / str(number)), "--workers", "1")
        error = user_error(done)
        assert "source 'b'" in error and "all of its 60 documents are dropped: language.missing 60" in error
        assert "source 'a'" not in done.stderr


def test_keep_removed_says_where_it_comes_too_late(twins: Callable[..., Path], tmp_path: Path) -> None:
    recipe = twins(cleaning=[{"step": "exact_dedup", "sources": ["b"]}])
    command = ("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--workers", "2")
    run_command(*command)
    late = run_command(*command, "--keep-removed").stderr
    assert "finished units of 'b' were made without --keep-removed" in late and "units of 'a'" not in late
    shutil.rmtree(next((tmp_path / "data" / "streams").glob("b-*")))
    assert "without --keep-removed" not in run_command(*command, "--keep-removed").stderr
    assert "without --keep-removed" not in run_command(*command, "--keep-removed").stderr
    assert removed_documents(tmp_path / "data")


def test_minhash_drops_near_copies(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(cleaning=[{"step": "minhash"}], mixture={"a": {"source": "a", "weight": 1}})
    rng = np.random.default_rng(0)
    words = [f"{a}{b}o{c}" for a in "bcdfglmn" for b in "aeiou" for c in "bcdfglmn"]  # digits would all count as 0
    texts = [" ".join(rng.choice(words, 120)) for _ in range(40)]
    near = [text + " tail" for text in texts[:15]]
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts + near])
    manifest = build(recipe, tmp_path / "data")
    assert manifest.sources["a"].documents.dropped == {"near_duplicate": 15}


WITH_JOBS = """
import sys
from corpus.pipeline import comparisons
comparisons.ROWS_HERE = 0
from corpus.build import main
main(sys.argv[1:])
"""
"""A build whose comparisons are done by workers, however small."""


def test_comparisons_done_by_workers_and_killed_between_give_the_same_streams(
    twins: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = twins(cleaning=[{"step": "exact_dedup", "scope": "source"}, {"step": "minhash"}])
    manifest = build(recipe, tmp_path / "data")
    assert manifest.sources["b"].documents.dropped == {"duplicate": 10, "near_duplicate": 18}  # two are too short
    arguments = ("-c", WITH_JOBS, str(recipe), "--workers", "2", "--out")
    done = run_command(*arguments, str(tmp_path / "jobs"))
    assert done.returncode == 0, done.stderr
    for stage in ("exact_dedup: group", "exact_dedup: match", "exact_dedup: list", "minhash: join-0"):
        assert f"{stage}, 1 jobs, 2 workers" in done.stderr
    assert tree_hashes(tmp_path / "jobs") == tree_hashes(tmp_path / "data")
    for out in ("data", "jobs"):
        assert not list((tmp_path / out / ".build" / "comparisons").glob("*"))  # nothing needs the findings any more

    for stage in ("exact_dedup: match", "minhash: list"):
        out = tmp_path / "killed"
        process = subprocess.Popen(
            [sys.executable, *arguments, str(out)], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(stage):
                process.send_signal(signal.SIGKILL)
        process.wait()
    done = run_command(*arguments, str(out))
    assert done.returncode == 0, done.stderr
    assert "exact_dedup: match" not in done.stderr
    assert tree_hashes(out) == tree_hashes(tmp_path / "data")


def test_decontamination_by_files_beside_the_recipe(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    question = "Natalia sold clips to forty eight of her friends in April and then she sold half as many in May"
    write_jsonl(tmp_path / "gsm.jsonl", [{"question": question, "answer": "72"}])
    recipe = make_recipe(
        cleaning=[{"step": "decontaminate", "against": ["gsm.jsonl"]}], mixture={"a": {"source": "a", "weight": 1}}
    )
    clean = documents(50, seed=1)
    write_jsonl(tmp_path / "a.jsonl", [*clean, {"text": f"Quiz! {question.upper()}? Answer now."}])
    manifest = build(recipe, tmp_path / "data")
    assert manifest.sources["a"].documents.dropped == {"contaminated": 1}
    stream = load_stream(tmp_path / "data" / "small" / manifest.sources["a"].stream)
    assert str(tmp_path) not in json.dumps(stream.cleaning)


def test_a_step_for_an_unknown_entry_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(cleaning=[{"step": "length", "sources": ["c"]}])
    assert "no mixture entry" in user_error(
        run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "d"))
    )
