"""Where the units of a build are made: on this machine, or by datatrove's Slurm and Ray executors on a cluster.

On a cluster the data folder must be at the same path on every node, on a file system that all of them see. The build
itself stays a process here: it submits, watches the workers' marks, resubmits what was lost and completes the streams.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corpus.pipeline.cluster_options import Cluster, saved_options

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep


def execute(pipeline: list[PipelineStep], attempt: Path, tasks: int, workers: int) -> None:
    """Run the pipeline for ranks 0..tasks-1 and wait; raises UserError when the executor cannot be used.

    What became of each unit stands in the attempt's folder, however this ends.
    """
    options = saved_options(attempt)
    if options is None:
        from datatrove.executor import LocalPipelineExecutor

        LocalPipelineExecutor(
            pipeline=pipeline,
            tasks=tasks,
            workers=workers,
            logging_dir=str(attempt / "datatrove"),
            skip_completed=False,  # our unit records decide what is done
            start_method="fork",  # the workers start with this process's imports
        ).run()
    elif options.kind == "slurm":
        from corpus.pipeline import on_slurm

        on_slurm.execute(options, pipeline, attempt, tasks, workers)
    else:
        from corpus.pipeline import on_ray

        on_ray.execute(options, pipeline, attempt, tasks, workers)


def cancel(options: Cluster, attempt: Path) -> None:
    """End what the attempt still has on the cluster, after its executor process is gone."""
    if options.kind == "slurm":
        from corpus.pipeline import on_slurm

        on_slurm.cancel(attempt)
    # Ray ends the work of a driver that is gone by itself.
