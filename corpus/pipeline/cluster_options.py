"""`--executor-options`: what a build is told of the cluster that its units are made on."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, field_validator

from corpus.base.config import Strict, parse, read_yaml
from corpus.base.errors import UserError

OPTIONS_FILE = "executor.json"
"""In an attempt's folder: the options of the executor that runs it."""


class ClusterOptions(Strict):
    """Keys that every cluster has."""

    cpus_per_task: int = Field(1, ge=1)
    """Cores of one unit's worker."""
    workers: int = Field(64, ge=1)
    """Units worked on at once, as far as the cluster has room; --workers goes before it."""
    lost_after: float = Field(120.0, ge=1)
    """Seconds without a sign of life after which a worker, or for a worker the build, is taken for gone."""


class SlurmOptions(ClusterOptions):
    """`--executor-options` of Slurm."""

    kind: Literal["slurm"] = "slurm"
    partition: str
    time: str
    """Limit of one unit, in Slurm's notation, in quotes: "2:00:00"."""
    mem_per_cpu_gb: int = Field(2, ge=1)
    qos: str | None = None
    venv_path: str | None = None
    """Virtual environment on the nodes (its folder or activate script). Without it, and without env_command, the
    nodes use the Python that runs the build, at the same path."""
    env_command: str | None = None
    """Shell command that makes Python and this package available on a node; used instead of venv_path."""
    sbatch_args: dict[str, str | int] = {}
    """More options of sbatch, by their long names without dashes."""

    @field_validator("time", mode="before")
    @classmethod
    def _quoted(cls, value: object) -> object:
        # YAML reads 2:00:00 as 7200, which Slurm would take for minutes.
        if isinstance(value, int):
            raise ValueError('write the time in quotes, such as "2:00:00"')
        return value


class RayOptions(ClusterOptions):
    """`--executor-options` of Ray."""

    kind: Literal["ray"] = "ray"
    address: str = "auto"
    """Of the running cluster, host:port; auto finds the one this machine is part of (or RAY_ADDRESS)."""
    mem_per_cpu_gb: float = Field(2.0, gt=0)


Cluster = SlurmOptions | RayOptions
_ANY: TypeAdapter[Cluster] = TypeAdapter(Annotated[Cluster, Field(discriminator="kind")])


def cluster_options(kind: str, file: Path | None) -> Cluster | None:
    """The options of ``--executor KIND --executor-options FILE``; None for this machine.

    Raises UserError for an unknown key, a missing one, or a cluster whose software is not here.
    """
    if kind == "local":
        if file is not None:
            raise UserError("needs --executor slurm or ray", where="--executor-options", fix="Or leave it out.")
        return None
    if kind == "slurm" and shutil.which("sbatch") is None:
        raise UserError("sbatch is not found", where="--executor slurm", fix="Run the build on a Slurm login node.")
    if kind == "ray" and importlib.util.find_spec("ray") is None:
        raise UserError("ray is not installed", where="--executor ray", fix="Run `pip install -e '.[ray]'`.")
    data = read_yaml(file) if file is not None else {}
    where = str(file) if file is not None else f"--executor {kind} without --executor-options"
    data = {**data, "kind": data.get("kind", kind)}
    return parse(SlurmOptions, data, where) if kind == "slurm" else parse(RayOptions, data, where)


def save_options(options: Cluster, attempt: Path) -> None:
    """Leave the options where the executor process of the attempt finds them."""
    (attempt / OPTIONS_FILE).write_text(options.model_dump_json())


def saved_options(attempt: Path) -> Cluster | None:
    """The options that `save_options` left, or None: the attempt runs on this machine."""
    path = attempt / OPTIONS_FILE
    return _ANY.validate_json(path.read_bytes()) if path.is_file() else None
