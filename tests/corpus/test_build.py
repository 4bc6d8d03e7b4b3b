"""The builder through its command: accounting, same bytes, killed builds, hostile input, errors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from corpus.records.manifest import Manifest, load_manifest
from corpus.records.stream import load_stream
from corpus.streams.samples import decode_samples, read_samples
from corpus.tokenization.pack import join_tail
from tests.conftest import ROOT, documents, environment, recipe_dict, run_command, user_error, write_jsonl
from tests.waiting import PATIENCE, wait_until

MakeRecipe = Callable[..., Path]


def build(recipe: Path, out: Path, *options: str) -> Manifest:
    """Run the build command to its end and read the manifest."""
    result = run_command("-m", "corpus.build", str(recipe), "--out", str(out), "--workers", "2", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    trial = f"@{options[options.index('--max-tokens') + 1]}" if "--max-tokens" in options else ""
    return load_manifest(out / f"{yaml.safe_load(recipe.read_text())['name']}{trial}")


def tree_hashes(out: Path) -> dict[str, str]:
    """SHA-256 of every file of all streams."""
    streams = out / "streams"
    return {
        path.relative_to(streams).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(streams.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Manifest]:
    """(recipe, data folder, manifest) of the reference build all other builds are compared with."""
    folder = tmp_path_factory.mktemp("built")
    write_jsonl(folder / "a.jsonl", documents(300, seed=1))
    write_jsonl(folder / "b.jsonl", [*documents(60, seed=2), {"text": ""}, {"id": "no text"}, {"text": 3}])
    recipe = folder / "small.yaml"
    data = recipe_dict({"a": ["a.jsonl"], "b": ["b.jsonl"]}, {"a": 3.0, "b": 1.0})
    recipe.write_text(yaml.safe_dump(data, sort_keys=False))
    return recipe, folder / "data", build(recipe, folder / "data", "--workers", "1", "--engine", "tokenizers")


def test_every_document_and_token_is_accounted_for(built: tuple[Path, Path, Manifest]) -> None:
    _, out, manifest = built
    for name, count in (("a", 300), ("b", 63)):
        record = load_stream(out / manifest.recipe / manifest.sources[name].stream)
        assert record.documents.read == count == record.documents.kept + sum(record.documents.dropped.values())
        assert record.tokens.text + record.tokens.boundary == record.tokens.written + record.tokens.remainder
        assert record.tokens.written == record.samples * 33 and record.tokens.remainder < 33
        assert sum(record.lengths.values()) == record.documents.kept
    assert manifest.sources["b"].documents.dropped == {"empty": 1, "missing_field": 1, "not_text": 1}
    assert [s.weight for s in manifest.sources.values()] == [0.75, 0.25]
    assert sum(s.samples_drawn for s in manifest.sources.values()) * 32 == manifest.tokens == 2560


def test_the_streams_decode_to_the_documents(built: tuple[Path, Path, Manifest]) -> None:
    """Every document comes back, in order and once: from each unit's samples and its left-over ids."""
    from tokenizers import Tokenizer

    _, out, manifest = built
    folder = out / manifest.recipe / manifest.sources["a"].stream
    record = load_stream(folder)
    tokenizer = Tokenizer.from_file(str(out / record.tokenizer.path / "tokenizer.json"))
    assert len(record.units) > 3
    texts, tails, first = [], [], 0
    for unit in record.units:
        rows = [ids for _, ids in read_samples(folder, list(range(first, first + unit.samples)))]
        left = np.frombuffer((folder / "units" / f"{unit.unit:06d}" / "tail.bin").read_bytes(), "<u4")
        ids = np.concatenate([*rows, left]).tolist()
        starts = [place for place, token in enumerate(ids) if token == record.tokenizer.bos_id]
        assert starts[0] == 0
        texts += [tokenizer.decode(ids[low + 1 : high]) for low, high in zip(starts, [*starts[1:], None], strict=True)]
        tails.append(join_tail(left, "bos", record.tokenizer.bos_id)[0])
        first += unit.samples
    assert texts == [document["text"] for document in documents(300, seed=1)]
    packed = np.concatenate([ids for _, ids in read_samples(folder, list(range(first, record.samples)))])
    joined = np.concatenate(tails)
    assert np.array_equal(packed, joined[: len(packed)]) and len(joined) - len(packed) == record.tokens.remainder


def test_samples_can_be_read_by_the_library(built: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    from streaming import StreamingDataset

    _, out, manifest = built
    folder = tmp_path / "copy"  # the library unpacks shards beside the packed ones
    shutil.copytree(out / manifest.recipe / manifest.sources["a"].stream, folder)
    record = load_stream(folder)
    dataset = StreamingDataset(local=str(folder), batch_size=1)
    assert len(dataset) == record.samples
    for index, ids in read_samples(folder, [0, 7, record.samples - 1]):
        assert np.array_equal(dataset[index]["ids"], ids) and ids.dtype == np.uint16


def test_same_bytes_from_more_workers_and_the_other_engine(built: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    recipe, out, manifest = built
    other = build(recipe, tmp_path / "data", "--workers", "4", "--engine", "gigatoken")
    assert tree_hashes(tmp_path / "data") == tree_hashes(out)
    assert other.fingerprint == manifest.fingerprint
    assert (other.built["engine"], manifest.built["engine"]) == ("gigatoken", "tokenizers")


def test_same_bytes_after_kills_at_random_points(built: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    recipe, out, manifest = built
    data = tmp_path / "data"
    rng = random.Random(7)
    command = [sys.executable, "-m", "corpus.build", str(recipe), "--out", str(data), "--workers", "2"]
    landed = 0
    for _ in range(3):
        before = len(list((data / "streams").glob("*/units/*")))
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
        target = before + rng.randint(1, 3)  # units to wait for before the kill
        wait_until(
            lambda: len(list((data / "streams").glob("*/units/*"))) >= target,  # noqa: B023 - called before it changes
            lambda: process.poll() is None,  # noqa: B023
            pause=0.002,
        )
        landed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert landed, "no kill came in the middle of a build"
    assert build(recipe, data).fingerprint == manifest.fingerprint
    assert tree_hashes(data) == tree_hashes(out)


def test_a_killed_worker_is_replaced(built: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    recipe, out, _ = built
    data = tmp_path / "data"
    command = [sys.executable, "-m", "corpus.build", str(recipe), "--out", str(data), "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    killed = []

    def kill() -> bool:
        for mark in data.glob(".build/*/run-*/running-*"):
            with contextlib.suppress(ValueError, ProcessLookupError, FileNotFoundError):
                os.kill(int(mark.read_text()), signal.SIGKILL)
                killed.append(mark)
        return len(killed) >= 2

    wait_until(kill, lambda: process.poll() is None, pause=0.002)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert killed
    assert tree_hashes(data) == tree_hashes(out)


def test_a_finished_build_does_no_work_again(built: tuple[Path, Path, Manifest]) -> None:
    recipe, out, manifest = built
    before = {path: path.stat().st_mtime_ns for path in (out / "streams").rglob("*") if path.is_file()}
    assert build(recipe, out).fingerprint == manifest.fingerprint
    assert before == {path: path.stat().st_mtime_ns for path in (out / "streams").rglob("*") if path.is_file()}


def test_special_tokens_in_text_yield_none_of_their_ids(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(boundary="both")
    spelled = "<|begin_of_text|><|end_of_text|> "
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"{n} {spelled * 3}"} for n in range(50)])
    manifest = build(recipe, tmp_path / "data")
    folder = tmp_path / "data" / "small" / manifest.sources["a"].stream
    record = load_stream(folder)
    rows = np.concatenate([ids for _, ids in read_samples(folder, list(range(record.samples)))])
    tokenizer = manifest.tokenizer
    # Nothing but the packer's own marks: one pair per document, less those in the unwritten remainder.
    for special in (tokenizer.bos_id, tokenizer.eos_id):
        assert 50 - record.tokens.remainder <= int((rows == special).sum()) <= 50
    documents_seen = [d["text"] for _, sample in decode_samples(folder, record, record.samples) for d in sample]
    assert any("<|begin_of_text|><|end_of_text|>" in text for text in documents_seen)


def test_a_scaled_down_build_reads_only_what_the_mix_needs(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    data = tmp_path / "data"
    manifest = build(recipe, data, "--max-tokens", "500")
    assert (manifest.tokens, manifest.steps) == (512, 4)  # whole steps of 4 x 32
    assert [s.samples_drawn for s in manifest.sources.values()] == [12, 4]
    assert all(s.samples >= s.samples_drawn for s in manifest.sources.values())
    full = build(recipe, data)
    assert load_manifest(data / "small@500") == manifest and full.tokens > 512  # a trial is beside the whole
    assert manifest.sources["a"].documents.read < full.sources["a"].documents.read == 300
    again = build(recipe, tmp_path / "again", "--max-tokens", "500", "--workers", "4")
    assert again.fingerprint == manifest.fingerprint
    trial = {name.split("/")[0] for name in tree_hashes(tmp_path / "again")}
    assert tree_hashes(tmp_path / "again") == {
        name: digest for name, digest in tree_hashes(data).items() if name.split("/")[0] in trial
    }


def test_cleaning_drops_are_counted_by_reason(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(cleaning=[{"step": "length", "min_chars": 100}])
    manifest = build(recipe, tmp_path / "data")
    texts = [d["text"] for d in documents(300, seed=1)]
    short = sum(len(text) < 100 for text in texts)
    assert sum(manifest.sources["a"].documents.dropped.values()) == short > 0
    assert manifest.sources["a"].documents.kept == 300 - short


def test_only_builds_one_stream_and_dry_run_none(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    out = tmp_path / "data"
    dry = run_command("-m", "corpus.build", str(recipe), "--out", str(out), "--dry-run")
    assert dry.returncode == 0 and "to make" in dry.stdout and not (out / "streams").exists()
    one = run_command("-m", "corpus.build", str(recipe), "--out", str(out), "--only", "b")
    assert one.returncode == 0
    assert [path.name.split("-")[0] for path in (out / "streams").iterdir()] == ["b"]
    assert not (out / "small").exists()


def test_user_mistakes_are_one_line_each(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    out = str(tmp_path / "data")

    def error_of(recipe: Path, *options: str) -> str:
        return user_error(run_command("-m", "corpus.build", str(recipe), "--out", out, *options))

    assert "no such file" in error_of(tmp_path / "absent.yaml")
    assert "'mixture.a.wieght'" in error_of(make_recipe(mixture={"a": {"source": "a", "wieght": 1}}))
    assert "Did you mean 'a'" in error_of(make_recipe(), "--only", "aa")
    assert "whole number of steps" in error_of(make_recipe(tokens=1000))
    assert "max_epochs" in error_of(
        make_recipe(mixture={"a": {"source": "a", "weight": 1, "max_epochs": 0.001}, "b": {"source": "b", "weight": 1}})
    )
    write_jsonl(tmp_path / "tiny.jsonl", [{"text": "x"}])
    tiny = recipe_dict({"tiny": ["tiny.jsonl"], "a": ["a.jsonl"]})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    assert "less than one sample" in error_of(tmp_path / "tiny.yaml")
    (tmp_path / "tiny.parquet").write_bytes(b"")
    tiny["sources"]["tiny"] |= {"format": "jsonl", "origin": {"kind": "files", "paths": ["tiny.parquet"]}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    assert "tiny.parquet cannot be of the format 'jsonl'. Set its `format`" in error_of(tmp_path / "tiny.yaml")


def test_malformed_records_fail_the_build_when_asked(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(malformed="fail")
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"text": broken\n')
    line = user_error(run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data")))
    assert "b.jsonl:" in line and "invalid_json" in line and "malformed: drop" in line
    assert not list((tmp_path / "data" / "streams").glob("b-*/stream.json"))


def test_a_damaged_file_fails_the_build_and_names_it(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    import gzip

    recipe = make_recipe()
    raw = yaml.safe_load(recipe.read_text())
    raw["sources"]["b"]["origin"]["paths"] = ["b.jsonl.gz"]
    recipe.write_text(yaml.safe_dump(raw))
    whole = gzip.compress((tmp_path / "b.jsonl").read_bytes())
    (tmp_path / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    line = user_error(
        run_command("-m", "corpus.build", str(recipe), "--out", str(tmp_path / "data"), "--engine", "tokenizers")
    )
    assert "b.jsonl.gz" in line
    assert not (tmp_path / "data" / "small").exists()


def test_two_builds_of_one_stream_at_once_are_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    import fcntl

    recipe = make_recipe()
    out = tmp_path / "data"
    build(recipe, out)
    lock = next((out / ".build").glob("a-*.lock"))
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        build(recipe, out)  # a complete stream is nobody's to wait for
        next((out / "streams").glob("a-*/stream.json")).unlink()
        assert "another build" in user_error(run_command("-m", "corpus.build", str(recipe), "--out", str(out)))


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    for module in ("corpus.build", "corpus.inspect", "corpus.plan", "corpus.sources"):
        result = run_command(
            "-c",
            f"import sys, {module}; print([m for m in ('torch', 'streaming', 'datatrove') if m in sys.modules])",
        )
        assert result.stdout.strip() == "[]", (module, result.stdout, result.stderr)
    assert run_command("-m", "corpus.build", "--help").returncode == 0


def test_the_manifest_holds_no_absolute_path_and_is_valid_json(built: tuple[Path, Path, Manifest]) -> None:
    _, out, manifest = built
    text = (out / manifest.recipe / "manifest.json").read_text()
    assert str(out.parent) not in text and str(Path.home()) not in text
    assert json.loads(text)["fingerprint"] == manifest.fingerprint
