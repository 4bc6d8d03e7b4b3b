"""The trainer's command: errors before anything starts, dry runs, phases, and the launcher."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus.base.errors import UserError
from tests.training.trainer_kit import ROOT, Ranks, build, metrics, recipe_dict, saves_hold_the_step, trajectory
from tests.waiting import PATIENCE, wait_until
from training.model.shapes import CURRICULA
from training.run import checkpoint
from training.run import folder as runs
from training.train import main


def places(folder: Path) -> list[str]:
    return ["--data", str(folder / "data"), "--out", str(folder / "runs")]


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused command prints."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(folder)
    return folder


def test_nothing_heavy_is_imported_before_the_command_is_checked() -> None:
    dry_run = "main(['--size', '950m', '--dry-run', '--data', 'none-here'])"
    code = (
        f"import sys; from training.train import main; {dry_run}; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'streaming', 'composer')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    result = subprocess.run([sys.executable, "training/train.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "--recipe" in result.stdout


def test_unbuilt_recipes_are_named_with_the_commands_that_build_them(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = built / "recipes" / "other.yaml"
    other.write_text(yaml.safe_dump(recipe_dict("other", 4)))
    mix = built / "recipes" / "mix.yaml"
    text = error(capsys, "--size", "tiny", "--recipe", other, *places(built))
    assert f"python -m corpus.build {other} --out {built / 'data'}" in text
    text = error(capsys, "--size", "tiny", "--phases", f"{mix},{other},{other}", *places(built))
    assert "2 of 3 recipes are not built" in text and text.count("corpus.build") == 2


def test_mistakes_are_one_line_with_what_mends_them(
    built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = ["--recipe", built / "recipes" / "mix.yaml", *places(built)]
    assert "Did you mean 'tiny'?" in error(capsys, "--size", "tinny", *mix)
    assert "512 ids, size 125m has 32,000" in error(capsys, "--size", "125m", *mix)
    tiny = ["--size", "tiny", *mix]
    assert "Did you mean 'optimizer.lr'?" in error(capsys, *tiny, "--set", "optimizer.lrr=1")
    assert "'seq_len' is fixed by the build" in error(capsys, *tiny, "--set", "seq_len=64")
    assert "is not KEY=VALUE" in error(capsys, *tiny, "--set", "seed")
    assert "tokens must be a whole number of steps" in error(capsys, *tiny, "--set", "tokens=1000")
    assert "24 steps of the phase: use at most 23" in error(capsys, *tiny, "--set", "schedule.warmup_steps=24")
    assert "COUNTxNAME" in error(capsys, *tiny, "--dry-run", "--gpus", "H100")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    text = error(capsys, *tiny)
    assert "3 processes" in text and "1, 2" in text


def test_what_is_not_there_or_not_whole_is_named(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "nowhere"
    text = error(capsys, "--size", "950m", "--data", nowhere)
    assert f"{nowhere}: 4 of 4 recipes are not built" in text
    assert re.findall(r"corpus\.build \S*/?(r1_\w+)\.yaml --out", text) == list(CURRICULA["r1"])
    recipe = built / "recipes" / "mix.yaml"
    command = ["--size", "tiny", "--recipe", recipe, *places(built)]
    assert "no such run, folder or file" in error(capsys, *command, "--load", nowhere)
    assert not (built / "runs" / "tiny-mix" / "run.json").exists()
    (tmp_path / "file").touch()
    assert "Choose another --out" in error(capsys, *command, "--out", tmp_path / "file")
    # With the package on the path or without: as if it were not installed.
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install -e '.[wandb]'" in error(capsys, *command, "--wandb")
    manifest = built / "data" / "mix" / "manifest.json"
    content = manifest.read_text()
    try:
        for damaged in (content[:-9], content.replace('"seed": 17', '"seed": 18'), "[]", ""):
            manifest.write_text(damaged)
            assert str(manifest) in error(capsys, *command)
    finally:
        manifest.write_text(content)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_vanishes_while_the_run_goes_is_named(workers: int, tmp_path: Path) -> None:
    path = build(tmp_path, "mix", 900, (600, 20))
    command = ["--size", "tiny", "--recipe", path, "--workers", workers, *places(tmp_path)]
    ranks = Ranks([*map(str, command)], 1, tmp_path / "log")
    ranks.wait_for(lambda: len(metrics(tmp_path / "runs" / "tiny-mix")) >= 2)
    for shard in (tmp_path / "data" / "streams" / "a-600").glob("shard.*"):
        shard.unlink()
    assert ranks.wait() == 2, ranks.output()
    last = ranks.output().splitlines()[-1]
    assert re.match(r"error: stream 'a', shard shard\.\d+\.mds\S* in ", last), last
    assert "Traceback" not in ranks.output()


def test_a_build_that_no_longer_fits_its_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = build(tmp_path, samples=(20, 10))
    recipe = yaml.safe_load(path.read_text())
    recipe["mixture"]["a"]["weight"] = 0.5
    path.write_text(yaml.safe_dump(recipe))
    command = ["--size", "tiny", "--recipe", path, *places(tmp_path)]
    assert f"mixture.a.weight is 0.5 in the recipe but 0.7 in the build. Run: python -m corpus.build {path}" in error(
        capsys, *command
    )
    build(tmp_path, samples=(20, 10))
    (tmp_path / "data" / "streams" / "b-10" / "stream.json").unlink()
    assert "the stream of 'b' is missing" in error(capsys, *command)


def test_dry_run_tells_what_would_be_trained(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(built / "recipes" / "mix.yaml")
    main(["--size", "125m", "--fit-vocab", "--recipe", recipe, *places(built), "--dry-run", "--gpus", "2xA100"])
    text = capsys.readouterr().out
    assert "6,144 = 24 steps of 8 x 32" in text
    assert "3: 3.000e-03" in text and "24: 3.000e-04" in text
    assert "processes (8 per node): 1, 2, 4, 8" in text
    # The published 124,635,456 less 31,488 rows of 576.
    assert "106,498,368 parameters" in text and "of 80 GB per device" in text
    assert not (built / "runs" / "125m-mix").exists()


def test_dry_run_needs_no_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--size", "950m", "--data", str(tmp_path), "--dry-run", "--gpus", "128xH100"])
    text = capsys.readouterr().out
    assert text.count("not built, run: python -m corpus.build") == 4
    assert "2,097,152,000,000 = 500,000 steps of 2,048 x 2,048" in text
    assert "500,000: 4.000e-04" in text and "50,000: 0.000e+00" in text
    assert "of 80 GB per device" in text


def test_two_commands_cannot_train_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LOCK_PATIENCE", 0.3)
    first = runs.RunFolder(tmp_path / "run")
    first.lock()
    with pytest.raises(UserError, match="another command is training this run"):
        runs.RunFolder(tmp_path / "run").lock()
    first.unlock()
    runs.RunFolder(tmp_path / "run").lock()


def finish(folder: Path, *arguments: object, processes: int = 1) -> str:
    ranks = Ranks([*map(str, arguments), *places(folder)], processes, folder / f"log{time.monotonic_ns()}")
    assert ranks.wait() == 0, ranks.output()
    return ranks.output()


def test_a_curriculum_goes_through_its_phases_with_a_kill_in_each(tmp_path: Path) -> None:
    """The second phase has a rate, seed and data of its own and takes the first one's optimiser over."""
    paths = [
        build(tmp_path, "one", 8, (40, 20)),
        build(tmp_path, "two", 6, (30, 20), optimizer={"lr": 1e-3}, virtual_epoch_samples=16),
    ]
    command = ["--size", "tiny", "--phases", ",".join(map(str, paths)), "--save-interval", 3, "--run-name"]
    finish(tmp_path, *command, "whole")
    run = tmp_path / "runs" / "cut"
    for rows in (4, 12):
        log = tmp_path / f"cut{rows}"
        ranks = Ranks([*map(str, command), "cut", *places(tmp_path)], 1, log, prepare=saves_hold_the_step)
        ranks.wait_for(lambda rows=rows: len(metrics(run)) >= rows)
        ranks.kill()
        ranks.wait()
    output = finish(tmp_path, *command, "cut")
    assert "resumed at step 3, next batch identical: yes" in output
    assert trajectory(run) == trajectory(tmp_path / "runs" / "whole")
    assert [(row["phase"], row["step"]) for row in metrics(run)] == [(0, s) for s in range(1, 9)] + [
        (1, s) for s in range(1, 7)
    ]
    last = [row for row in metrics(run) if row["phase"] == 0][-1]["loss"]
    assert metrics(run)[8]["loss"] == pytest.approx(last, abs=0.5)
    state = checkpoint.read_state(checkpoint.listing(run / "checkpoints")[0])["optimizers"]["AdamW"]["state"]
    assert {float(entry["step"]) for entry in state.values()} == {14.0}
    assert "nothing left to train" in finish(tmp_path, *command, "cut")


def test_weights_of_another_run_start_a_new_one_and_a_loss_that_is_no_number_stops_it(tmp_path: Path) -> None:
    path = build(tmp_path, "mix", 12, (60, 20))
    finish(tmp_path, "--size", "tiny", "--recipe", path)
    parent = tmp_path / "runs" / "tiny-mix"
    arguments = [
        "--size",
        "tiny",
        "--recipe",
        path,
        "--load",
        parent,
        "--run-name",
        "child",
        "--set",
        "optimizer.lr=1e30",
    ]
    ranks = Ranks([*map(str, arguments), *places(tmp_path)], 1, tmp_path / "child")
    assert ranks.wait() == 2
    text = ranks.output()
    rows = metrics(tmp_path / "runs" / "child")
    assert rows[0]["loss"] == pytest.approx(metrics(parent)[-1]["loss"], abs=0.5)
    # A step before the loss itself: its gradients are no numbers any more, and would have spoilt the next checkpoint.
    assert "Traceback" not in text and f"the norm of the gradients is nan at step {rows[-1]['step']}" in text
    assert isinstance(rows[-1]["loss"], float) and rows[-1]["grad_norm"] == "nan"
    bad: dict[str, Any] = json.loads(next((tmp_path / "runs" / "child").glob("bad-batch-*.json")).read_text())
    assert bad["step"] == rows[-1]["step"] and bad["digest"] == rows[-1]["samples"]
    assert [len(rank) for rank in bad["ranks"]] == [8] and {"sample", "source"} == set(bad["ranks"][0][0])


def test_processes_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    sign = tmp_path / "stopped"
    child = (
        "import os, pathlib, time; from training.run.ranks import StopSignal, follow_launcher\n"
        "follow_launcher(os.getppid()); stop = StopSignal(); stop.listen(); print(flush=True)\n"
        "while not stop.received: time.sleep(0.01)\n"
        f"pathlib.Path({str(sign)!r}).touch()"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    launcher = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "RANK": "0"}
    )
    assert launcher.stdout
    launcher.stdout.readline()
    launcher.kill()
    launcher.stdout.read()
    launcher.wait()
    assert sign.exists()


def test_a_process_whose_launcher_died_before_it_could_say_so_ends_at_once() -> None:
    code = "import os; from training.run.ranks import follow_launcher; follow_launcher(os.getppid() + 1); print('on')"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "RANK": "0"}, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_composer_launches_it_and_a_stop_signal_saves_and_exits_with_zero(number: int, tmp_path: Path) -> None:
    """The very command of the README, on two processes, until a scheduler asks it to go.

    SIGTERM reaches the launcher, which passes it on. USR1 goes to every process of the job, and the launcher, started
    below `trap '' USR1`, knows nothing of it: its 30 seconds do not begin.
    """
    path = build(tmp_path, "mix", 400, (60, 20))
    run = tmp_path / "runs" / "tiny-mix"
    command = [str(Path(sys.executable).parent / "composer"), "-n", "2", "training/train.py", "--size", "tiny"]
    command += ["--recipe", str(path), *places(tmp_path)]
    if number == signal.SIGUSR1:
        command = ["bash", "-c", 'trap "" USR1; exec "$@"', "bash", *command]
    with (tmp_path / "log").open("w") as log:
        launcher = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )  # fmt: skip
    try:
        stepping = wait_until(lambda: len(metrics(run)) >= 3, lambda: launcher.poll() is None)
        assert stepping, (tmp_path / "log").read_text()
    finally:
        if number == signal.SIGUSR1:
            os.killpg(launcher.pid, number)
        else:
            launcher.send_signal(number)
        code = launcher.wait(PATIENCE)
    assert code == 0, (tmp_path / "log").read_text()
    saved = checkpoint.listing(run / "checkpoints")
    assert len(saved) == 1 and checkpoint.verify(saved[0]).step == len(metrics(run)) < 400
