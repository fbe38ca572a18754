"""Options that say on which machines, for commands that hand work over or plan it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

ON = "local, slurm, kubernetes, ray, or the address of a cluster's jobs API."

Nodes = Annotated[int | None, typer.Option(help="How many.")]
Gpus = Annotated[int | None, typer.Option(help="Of each node.")]
GpuType = Annotated[str | None, typer.Option(help="As the cluster calls it.")]
Cpus = Annotated[int | None, typer.Option(help="Of each node.")]


def of_cluster(asked: Mapping[str, Any]) -> list[str]:
    """Options of a command line as what they override in an experiment."""
    return [
        f"cluster.{name}={json.dumps(value)}" for name, value in asked.items() if value is not None
    ]
