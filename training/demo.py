"""`make demo`: the whole way on one machine, in minutes: build a corpus, train on it, kill the run, resume it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from corpus.base.errors import UserError, command

RECIPE = "recipes/sample.yaml"
DATA, RUNS = Path("data"), Path("runs")
RUN = "demo"
KILL_AT, SAVE_EVERY = 120, 50
"""The run is killed at or after this step, between two checkpoints."""
PROOF = "next batch identical"


def main() -> None:
    """Entry point."""
    argparse.ArgumentParser(prog="python -m training.demo", description=__doc__).parse_args()
    with command():
        run_demo()


def run_demo() -> None:
    """Run the commands of the README one after the other; raises UserError when one does not do what it should."""
    started = time.monotonic()
    if not Path(RECIPE).is_file():
        raise UserError("run it from the root of the repository", where="make demo")
    run_folder = RUNS / RUN
    if run_folder.exists():
        print(f"removing the run of an earlier demo: {run_folder}")
        shutil.rmtree(run_folder)
    _step("1 of 5: build the corpus: tokenise, pack, count", *_python("-m", "corpus.build", RECIPE))
    _step("2 of 5: what was built", *_python("-m", "corpus.inspect", str(DATA / "sample")))
    train = [
        str(Path(sys.executable).with_name("composer")), "-n", "1", "training/train.py",
        "--size", "tiny", "--recipe", RECIPE, "--save-interval", str(SAVE_EVERY), "--run-name", RUN,
    ]  # fmt: skip
    _say(f"3 of 5: train, and kill the run without warning after step {KILL_AT}", train)
    _train_and_kill(train, run_folder / "metrics.jsonl")
    output = _step("4 of 5: the same command again goes on where the last checkpoint stands", *train)
    proof = next((line for line in output if PROOF in line), None)
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    if proof is None or not proof.rstrip().endswith("yes"):
        raise UserError(f"the resumed run did not prove its next batch: {proof}", where=str(run_folder))
    if steps != list(range(1, len(steps) + 1)):
        raise UserError("steps are missing or doubled in the metrics", where=str(run_folder / "metrics.jsonl"))
    _say("5 of 5: results", [])
    subprocess.run(_python("-m", "corpus.inspect", str(DATA / "sample")), check=True)
    print(f"loss: {rows[0]['loss']:.4f} at step 1 -> {rows[-1]['loss']:.4f} at step {rows[-1]['step']}")
    print(proof[proof.index("resumed") :].rstrip())
    for name, path in (
        ("manifest", DATA / "sample" / "manifest.json"),
        ("report", DATA / "sample" / "report.html"),
        ("metrics", run_folder / "metrics.jsonl"),
        ("loss plot", run_folder / "loss.png"),
    ):
        if not path.is_file():
            raise UserError("was not written", where=str(path))
        print(f"{name + ':':<11}{path}")
    print(f"done in {time.monotonic() - started:.0f} s")


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _say(title: str, arguments: list[str]) -> None:
    shown = ["python" if argument == sys.executable else argument for argument in arguments]
    if shown and shown[0].endswith("/composer"):
        shown[0] = "composer"
    print(f"\n=== {title}" + (f"\n$ {shlex.join(shown)}" if shown else ""), flush=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def _step(title: str, *arguments: str) -> list[str]:
    """Run a command, passing its output on; returns the lines. Raises UserError when it fails."""
    _say(title, list(arguments))
    lines = []
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise UserError(f"failed with exit code {process.returncode}", where=shlex.join(arguments))
    return lines


def _train_and_kill(arguments: list[str], metrics: Path) -> None:
    """Start training and SIGKILL the whole process group once the metrics reach KILL_AT."""
    process = subprocess.Popen(arguments, env=_environment(), start_new_session=True)
    try:
        while process.poll() is None:
            time.sleep(0.2)
            lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
            if len(lines) >= KILL_AT:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                print(f"killed (SIGKILL) after step {len(lines)}", flush=True)
                return
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    raise UserError(f"training ended before step {KILL_AT}, with exit code {process.returncode}", where=RUN)


if __name__ == "__main__":
    main()
