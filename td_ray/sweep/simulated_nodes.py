"""Several nodes of Ray on this machine: to see how a run fares on nodes before there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.cluster_utils import Cluster

from td_ray.sweep.connection import ENVIRONMENT


@contextmanager
def simulated_nodes(nodes: int, cpus: int, folder: Path) -> Iterator[str]:
    """Have nodes of so many CPUs each, every one with a cache of its own; yields their address.

    Args:
        folder: for their caches.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cluster = Cluster()
    try:
        for number in range(nodes):
            cache = {"TD_RAY_CACHE": str(folder / f"cache-{number}")}
            options = {} if number else {"include_dashboard": False}
            cluster.add_node(num_cpus=cpus, env_vars=cache, **options)
        yield str(cluster.address)
    finally:
        cluster.shutdown()
