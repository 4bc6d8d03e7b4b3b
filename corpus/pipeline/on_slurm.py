"""Units as a job array of Slurm, through datatrove's executor."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from datatrove.executor import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from corpus.base.errors import UserError
from corpus.pipeline.cluster_options import SlurmOptions

PACKAGE = Path(__file__).resolve().parent.parent.parent
POLL_SECONDS = 2.0
PATIENCE = 600.0
"""Seconds for which squeue may fail: a controller is restarted now and then, and the jobs go on meanwhile."""


class JobArray(SlurmPipelineExecutor):
    """datatrove's executor without its job that merges statistics, which would wait for ever after a lost task."""

    def launch_merge_stats(self) -> None:
        """The units' own records hold all counts."""


def execute(options: SlurmOptions, pipeline: list[PipelineStep], attempt: Path, tasks: int, workers: int) -> None:
    """Submit the pipeline and wait until none of its jobs is left; Slurm requeues those of a node that fails."""
    # Inside a job array the executor would take this process for one of its own tasks.
    os.environ.pop("SLURM_ARRAY_TASK_ID", None)
    array = JobArray(
        pipeline=pipeline,
        tasks=tasks,
        workers=workers,
        time=options.time,
        partition=options.partition,
        cpus_per_task=options.cpus_per_task,
        mem_per_cpu_gb=options.mem_per_cpu_gb,
        job_name=_name(attempt),
        qos=options.qos or "",
        env_command=options.env_command or _environment(options.venv_path),
        sbatch_args=dict(options.sbatch_args),
        logging_dir=str(attempt / "datatrove"),
        skip_completed=False,  # our unit records decide what is done
    )
    try:
        array.run()
    except subprocess.CalledProcessError:
        said = [line for line in (attempt / "executor.log").read_text().splitlines() if line.startswith("sbatch:")]
        raise UserError(
            f"sbatch refuses the job: {said[-1].removeprefix('sbatch:').strip() if said else 'no reason given'}",
            where="--executor slurm",
            fix="Check --executor-options.",
        ) from None
    failing_since = None
    while True:
        time.sleep(POLL_SECONDS)
        queue = subprocess.run(
            ["squeue", "--noheader", f"--name={_name(attempt)}", "--format=%i"], capture_output=True, text=True
        )
        if queue.returncode == 0:
            failing_since = None
            if not queue.stdout.strip():
                return
        else:
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since > PATIENCE:
                raise UserError(f"squeue fails: {queue.stderr.strip()}", where="--executor slurm")


def cancel(attempt: Path) -> None:
    """Take the attempt's jobs, waiting or running, off the cluster."""
    subprocess.run(["scancel", "--quiet", f"--name={_name(attempt)}"], capture_output=True)


def _name(attempt: Path) -> str:
    """The jobs' name, by which they are found again: no other attempt has it."""
    return f"corpus-{hashlib.sha256(str(attempt).encode()).hexdigest()[:16]}"


def _environment(venv: str | None) -> str:
    """The shell command that puts Python and this package in place on a node."""
    package = f'export PYTHONPATH={shlex.quote(str(PACKAGE))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    if venv is None:
        return f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; {package}'
    activate = venv if venv.endswith("activate") else f"{venv.rstrip('/')}/bin/activate"
    return f"source {shlex.quote(activate)}; {package}"
