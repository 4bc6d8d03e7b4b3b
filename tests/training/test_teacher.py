"""The command that writes a teacher's top k, and runs that learn from a teacher; both refuse one that does not fit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from corpus.base.errors import UserError
from corpus.records.manifest import load_manifest
from tests.conftest import environment
from tests.training.distillation.teacher_kit import CPU, Bench, make_teacher, word_tokenizer
from tests.training.trainer_kit import VOCAB, metrics, trajectory
from tests.waiting import PATIENCE
from training import teacher as teacher_command
from training.distillation.teacher import OnlineTeacher
from training.train import main as train


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("teacher"))


def test_runs_that_distil_from_disk_resume_exactly_and_match_a_sharded_online_teacher(bench: Bench) -> None:
    bench.write(6)
    settings = {"top_k": 6, "cache": True, "ce_weight": 0.25, "direction": "reverse"}
    more = ["--save-interval", "3"]
    rows = bench.finish("whole", *more, **settings)
    for row in rows:
        assert 0.25 * row["ce"] + 0.75 * row["kd"] == pytest.approx(row["loss"], rel=1e-5)
    cut = bench.start("cut", *more, "--workers", "1", **settings)
    cut.wait_for(lambda: len(metrics(bench.run("cut"))) >= 4)
    cut.kill()
    cut.wait()
    bench.finish("cut", *more, **settings)
    assert trajectory(bench.run("cut")) == trajectory(bench.run("whole"))
    assert [(row["kd"], row["ce"]) for row in metrics(bench.run("cut"))] == [(row["kd"], row["ce"]) for row in rows]
    # Two processes, each data worker reading the cache for its own.
    ranks = bench.finish("ranks", "--until", "3", "--workers", "1", processes=2, **settings)
    assert [row["samples"] for row in ranks] == [row["samples"] for row in rows[:3]]
    assert [row["kd"] for row in ranks] == pytest.approx([row["kd"] for row in rows[:3]], rel=1e-5)
    online = {key: value for key, value in settings.items() if key != "cache"}
    two = bench.finish("two", "--until", "3", "--parallel", "fsdp2", processes=2, **online)
    assert [row["samples"] for row in two] == [row["samples"] for row in rows[:3]]
    for key in ("loss", "kd", "ce"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in rows[:3]], rel=2e-3)


def test_writing_goes_on_where_it_was_stopped(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write(5)
    folder = next(f for f in bench.caches("a-40") if json.loads((f / "teacher.json").read_text())["k"] == 5)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    # As a kill between a shard's two files leaves it.
    (folder / "teacher.json").unlink()
    lost = next(folder.glob("000001-0-*.log_probs.npy"))
    lost.unlink()
    capsys.readouterr()
    bench.write(5)
    assert "1 shards to write" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    rewritten = {name for name, time in times.items() if (folder / name).stat().st_mtime_ns != time}
    assert rewritten == {lost.name, lost.name.replace("log_probs", "ids"), "teacher.json"}


def test_processes_share_the_shards_out_whatever_each_finds_written(bench: Bench) -> None:
    """Three processes at once, one of them killed at the start; then two that find some of it done."""
    shared = [str(bench.recipe), "--teacher", str(bench.teacher), "--data", str(bench.data), "--top-k", "4"]
    code = f"from training.teacher import main; main({shared!r})"

    def write(world: int, but: int | None = None) -> list[str]:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code], env=environment(RANK=str(rank), WORLD_SIZE=str(world)),
                stdout=subprocess.PIPE, text=True,
            )
            for rank in range(world) if rank != but
        ]  # fmt: skip
        said = [rank.communicate(timeout=PATIENCE)[0] for rank in ranks]
        assert all(rank.returncode == 0 for rank in ranks)
        return said

    def owned(said: str) -> int:
        return int(re.search(r"(\d+) shards to write", said)[1]) if "shards to write" in said else 0  # type: ignore[index]

    first = write(3, but=1)
    assert all("left to other processes" in each for each in first[-1:]) and sum(map(owned, first)) < 5
    second = write(2)
    assert sum(map(owned, first + second)) == 5  # each shard was written once
    assert all(folder.is_dir() for name in ("a-40", "b-20") for folder in bench.caches(name))
    assert bench.found(4)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        train(arguments)
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_a_teacher_that_does_not_fit_is_refused_before_the_run_starts(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = make_teacher(tmp_path / "wide", vocab_size=VOCAB + 8)
    assert "has 520 ids, the student has 512" in refused(capsys, bench.arguments("x", teacher=str(wide)))
    other = make_teacher(tmp_path / "other")
    ours = word_tokenizer(bench.data / "tokenizers" / "t" / "tokenizer.json", "? The quick brown fox")
    word_tokenizer(other / "tokenizer.json", "? The quick red fox brown")
    text = refused(capsys, bench.arguments("x", teacher=str(other)))
    assert "encodes text differently: first at 'brown' and 'brown'" in text
    word_tokenizer(other / "tokenizer.json", "? The quick brown fox")
    OnlineTeacher(str(other), vocab_size=VOCAB, device=CPU, tokenizer=ours)
    ours.unlink()
    assert "holds no config.json" in refused(capsys, bench.arguments("x", teacher=str(tmp_path)))
    assert "cache needs top_k" in refused(capsys, bench.arguments("x", cache=True))
    assert not bench.run("x").exists()


def test_a_cache_that_does_not_fit_is_refused(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write(6)
    text = refused(capsys, bench.arguments("x", top_k=7, cache=True))
    assert (
        "k 6 instead of 7" in text
        and f"python -m training.teacher {bench.recipe} --teacher {bench.teacher} --top-k 7" in text
    )
    assert "temperature 1.0 instead of 2.0" in refused(
        capsys, bench.arguments("x", top_k=6, temperature=2.0, cache=True)
    )
    assert "document_mask False instead of True" in refused(
        capsys, bench.arguments("x", "--set", "document_mask=true", top_k=6, cache=True)
    )
    assert "teacher tiny-llama instead of another" in refused(
        capsys, bench.arguments("x", top_k=6, cache=True, teacher="another")
    )
    # The same name, other weights.
    changed = make_teacher(tmp_path / "tiny-llama", seed=5)
    assert "other weights of the teacher" in refused(
        capsys, bench.arguments("x", top_k=6, cache=True, teacher=str(changed))
    )
    # Another stream in the same place.
    copy = tmp_path / "copy"
    shutil.copytree(bench.folder, copy, ignore=shutil.ignore_patterns("runs"))
    manifest = load_manifest(copy / "data" / "mix")
    source = manifest.sources["a"].model_copy(update={"stream_fingerprint": "f" * 64})
    manifest.model_copy(update={"sources": {**manifest.sources, "a": source}}).write(copy / "data" / "mix")
    arguments = bench.arguments("x", top_k=6, cache=True)
    arguments[arguments.index("--data") + 1] = str(copy / "data")
    assert "stream_fingerprint" in refused(capsys, arguments)


def test_the_recipe_names_the_teacher(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load(bench.recipe.read_text())
    recipe["training"]["distillation"] = {"teacher": str(bench.teacher), "top_k": 6}
    named = bench.folder / "recipes" / "named.yaml"
    named.write_text(yaml.safe_dump(recipe))
    teacher_command.main([str(named), "--data", str(bench.data)])
    assert capsys.readouterr().out.count("complete") == 2
    with pytest.raises(UserError, match="--teacher: the recipe does not say it"):
        teacher_command.main([str(bench.recipe), "--data", str(bench.data)])
    arguments = ["--size", "tiny", "--recipe", str(named), "--data", str(bench.data), "--out", str(bench.folder / "r")]
    text = refused(capsys, [*arguments, "--set", "distillation.teacher=nowhere", "--set", "distillation.cache=true"])
    assert "teacher tiny-llama instead of nowhere" in text
