"""Running unit pipelines on one of datatrove's executors, watched from the parent process.

datatrove's pools wait for ever when one of their workers is killed, so the executor runs in a process of its own:
the parent sees a worker vanish, ends that process group and starts the executor again on the units still missing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.base.errors import UserError
from corpus.base.files import full_disk
from corpus.pipeline import executors
from corpus.pipeline.cluster_options import Cluster, save_options, saved_options
from corpus.pipeline.heartbeat import ParentBeat, Silence
from corpus.pipeline.job import Job, Purpose
from corpus.pipeline.marks import OWNER, alive, die_with_parent

POLL_SECONDS, POLL_SHARED_SECONDS = 0.2, 1.0
"""Between two looks at the workers' files, on a local disk and on one that a cluster shares."""
MAX_RESTARTS = 3
"""Restarts in a row that finish no unit before the build gives up."""
ROOM_FOR_A_REPORT = 1 << 18
"""Bytes: with less, workers that fail may not have been able to say why."""


@dataclass
class Progress:
    """Counts of the units of one run so far: index into the jobs -> what Tally.counts gives."""

    counts: dict[int, list[Any]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    barren: dict[int, tuple[dict[str, int], dict[str, str]]] = field(default_factory=dict)
    """Finished units that kept nothing: what was dropped, by reason, and where the first was."""


def run_jobs(
    jobs: list[Job],
    work: Path,
    workers: int,
    show: Callable[[Progress], None],
    purpose: Purpose | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Make every job's unit with ``workers`` processes; raises UserError naming the first unit that failed.

    ``purpose``: the stage of a comparison that the jobs are for; None makes shards.
    ``cluster``: where the workers are; None is this machine.
    ``work`` is a scratch folder for this run; ``show`` is called with the counts about five times a second.
    """
    progress = Progress()
    remaining = list(range(len(jobs)))
    barren = 0
    while remaining:
        attempt = work / f"run-{time.monotonic_ns()}"
        attempt.mkdir(parents=True)
        jobs_file = attempt / "jobs.json"
        jobs_file.write_text(json.dumps([jobs[index] for index in remaining]))
        watcher = _Watcher(attempt, remaining, progress, show, purpose, cluster)
        lost = watcher.run(jobs_file, min(workers, len(remaining)))
        watcher.raise_failures()
        if lost and shutil.disk_usage(work).free < ROOM_FOR_A_REPORT:
            raise full_disk(work)
        finished = {index for index in remaining if index in progress.done}
        # A unit that ended its worker is tried last, so that it cannot keep the others from being made.
        poison = watcher.lost_index
        remaining = sorted((index for index in remaining if index not in finished), key=lambda i: (i == poison, i))
        if lost and poison is not None:
            lost += f" on unit {jobs[poison].unit} of {Path(jobs[poison].plan).name.removesuffix('.plan.json')}"
        barren = 0 if finished else barren + 1
        if remaining and barren > MAX_RESTARTS:
            likely = "Most often memory ran out: use fewer --workers"
            if cluster is not None:
                likely = "Raise mem_per_cpu_gb, and make sure that every node sees this folder"
            raise UserError(
                f"worker processes keep being killed ({lost or 'no reason known'}); see {attempt / 'executor.log'}",
                fix=f"{likely}; finished units are kept.",
            )
        if not remaining:
            shutil.rmtree(attempt, ignore_errors=True)


class _Watcher:
    """One start of the executor, and what its workers leave in the attempt's folder."""

    def __init__(
        self,
        folder: Path,
        indices: list[int],
        progress: Progress,
        show: Callable[[Progress], None],
        purpose: Purpose | None,
        cluster: Cluster | None,
    ) -> None:
        self.folder, self.indices, self.progress, self.show, self.purpose = folder, indices, progress, show, purpose
        self.cluster = cluster
        self.lost_index: int | None = None
        """The job whose worker vanished."""
        self.beat: ParentBeat | None = None
        if cluster is not None:
            save_options(cluster, folder)
            self.beat, self.silence = ParentBeat(folder, cluster.lost_after), Silence(cluster.lost_after)

    def run(self, jobs_file: Path, workers: int) -> str | None:
        """Run until the executor ends or loses a worker; returns what was lost."""
        arguments = [str(jobs_file), str(len(self.indices)), str(workers)]
        if self.purpose is not None:
            arguments += [str(self.purpose.step), self.purpose.stage]
        with (self.folder / "executor.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "corpus.pipeline.run", *arguments],
                env={**os.environ, OWNER: str(os.getpid()), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C is the parent's to handle, and the group can be ended as one
            )  # fmt: skip
        lost = None
        try:
            while process.poll() is None and lost is None:
                time.sleep(POLL_SECONDS if self.beat is None else POLL_SHARED_SECONDS)
                lost = self._poll()
            self._poll()
            if lost is None and process.returncode:
                lost = f"the executor ended with exit code {process.returncode}"
        finally:
            _kill_group(process.pid)
            process.wait()
            if self.cluster is not None:
                executors.cancel(self.cluster, self.folder)
        return lost

    def _poll(self) -> str | None:
        """Read the workers' files; returns a worker that vanished in mid-unit."""
        lost = None
        if self.beat is not None:
            self.beat.beat()
        for entry in os.scandir(self.folder):
            kind, _, rest = entry.name.partition("-")
            if kind not in ("progress", "done", "running") or not rest.removesuffix(".json").isdigit():
                continue
            index = self.indices[int(rest.removesuffix(".json"))]
            if index in self.progress.done:
                continue
            with contextlib.suppress(FileNotFoundError, ValueError):
                content = json.loads(Path(entry.path).read_bytes())
                if kind == "running":
                    if self._vanished(entry.name, content) and Path(entry.path).exists():
                        lost, self.lost_index = f"worker {content}", index
                    continue
                self.progress.counts[index] = content[:3]
                if kind == "done":
                    if content[3]:
                        self.progress.barren[index] = content[3][0], content[3][1]
                    self.progress.done.add(index)
                    Path(entry.path).unlink(missing_ok=True)  # so that the next look has little to read
                    (self.folder / f"progress-{rest}.json").unlink(missing_ok=True)
        self.show(self.progress)
        return lost

    def _vanished(self, name: str, mark: Any) -> bool:
        """Whether a worker is gone, by its process id, or on a cluster by its silence (Slurm tells its end itself)."""
        if self.cluster is None:
            return not alive(mark)
        return self.cluster.kind != "slurm" and self.silence.of(name, mark)

    def raise_failures(self) -> None:
        """Raise the first failure (by unit order) that a worker reported."""
        failures = sorted(self.folder.glob("failed-*.json"), key=lambda path: int(path.stem.split("-")[1]))
        if not failures:
            return
        try:
            report = json.loads(failures[0].read_bytes())
        except ValueError:  # there was room for the file's name only
            raise full_disk(self.folder.parent) from None
        more = f" ({len(failures) - 1} more units failed)" if len(failures) > 1 else ""
        if report["user"]:
            what, where, fix = report["user"]
            raise UserError(what + more, where=where, fix=fix)
        raise UserError(
            f"{report['error']}{more}",
            where=report["where"],
            fix=f"The traceback is in {failures[0]}; finished units are kept.",
        )


def _execute(jobs_file: Path, tasks: int, workers: int, purpose: Purpose | None) -> None:
    """Body of the executor process: make the units, then complete the streams that have all of theirs."""
    attempt = jobs_file.parent
    die_with_parent(int(os.environ[OWNER]))
    if saved_options(attempt) is None:
        # Pool workers that have not begun a unit yet would otherwise wait for ever for a dead executor.
        os.register_at_fork(after_in_child=functools.partial(die_with_parent, os.getpid()))
    from corpus.pipeline.steps import unit_pipeline
    from corpus.streams.finish import complete_stream
    from corpus.streams.made import is_short, units_to_make
    from corpus.streams.plan import load_plan
    from corpus.tokenization.check import load_engine, special_table
    from corpus.tokenization.engine import ReferenceEngine

    jobs = [Job(*job) for job in json.loads(jobs_file.read_bytes())]
    plans = [load_plan(Path(path)) for path in dict.fromkeys(job.plan for job in jobs)]
    if purpose is None:
        for plan in plans:
            load_engine(plan.tokenizer_json, plan.engine)
            load_engine(plan.tokenizer_json, ReferenceEngine.name)
            special_table(plan.tokenizer_json, plan.tokenizer.vocab_size)
    try:
        executors.execute(unit_pipeline(jobs_file, purpose), attempt, tasks, workers)
    except UserError as error:
        # Reported after every unit that failed by itself: ranks end before `tasks`.
        (attempt / f"failed-{tasks}.json").write_text(json.dumps({"user": [error.what, error.where, error.fix]}))
        return
    if purpose is not None:
        return
    for plan in plans:
        if not plan.is_complete() and not units_to_make(plan) and not is_short(plan):
            with contextlib.suppress(UserError):  # the parent meets the same error, and reports it
                complete_stream(plan)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    _execute(
        Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]),
        Purpose(int(sys.argv[4]), sys.argv[5]) if sys.argv[4:] else None,
    )  # fmt: skip
