"""Units on a Ray cluster, through datatrove's executor."""

from __future__ import annotations

import logging
from pathlib import Path

import ray
from datatrove.executor import RayPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from corpus.base.errors import UserError
from corpus.pipeline.cluster_options import RayOptions
from corpus.pipeline.environment import leave_environment

PACKAGE = Path(__file__).resolve().parent.parent.parent


def execute(options: RayOptions, pipeline: list[PipelineStep], attempt: Path, tasks: int, workers: int) -> None:
    """Run the pipeline on the cluster and wait. A worker that Ray sees die is started again by datatrove."""
    try:
        ray.init(
            address=options.address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            # Where the package is not installed, the nodes take it from where the build runs.
            runtime_env={"env_vars": {"PYTHONPATH": str(PACKAGE)}},
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"no Ray cluster answers at '{options.address}' ({str(error).splitlines()[0]})",
            where="--executor ray",
            fix="Start one with `ray start --head`, or name its address in --executor-options.",
        ) from None
    memory = options.mem_per_cpu_gb * options.cpus_per_task * (1 << 30)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= options.cpus_per_task and node.get("memory", 0) >= memory for node in nodes):
        raise UserError(
            f"no node of the cluster has {options.cpus_per_task} CPUs and {memory / (1 << 30):g} GiB for a task",
            where="--executor ray",
            fix="Lower cpus_per_task or mem_per_cpu_gb in --executor-options.",
        )
    environment = leave_environment(attempt)
    try:
        RayPipelineExecutor(
            pipeline=pipeline,
            tasks=tasks,
            workers=workers,
            cpus_per_task=options.cpus_per_task,
            mem_per_cpu_gb=options.mem_per_cpu_gb,
            logging_dir=str(attempt / "datatrove"),
            skip_completed=False,  # our unit records decide what is done
        ).run()
    finally:
        environment.unlink(missing_ok=True)
