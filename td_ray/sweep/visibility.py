"""Whether all nodes see the output folder: each looks for the lock that this run has put there."""

from __future__ import annotations

import time
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from td_ray.errors import InputError
from td_ray.storage import LOCK, Folder

SECONDS_TO_APPEAR = 5.0
"""In which a file must be seen elsewhere; network file systems take their time."""


def require_seen(output: Folder) -> None:
    """Refuse an output folder that other nodes of the cluster do not see.

    Args:
        output: which this process holds.

    Raises:
        InputError: one does not; names it.
    """
    if output.local is None:
        return
    here = ray.get_runtime_context().get_node_id()
    look = ray.remote(_sees)
    looks = {
        node["NodeManagerHostname"]: look.options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(output.local.absolute() / LOCK, output.read(LOCK))
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here
    }
    for host, looked in looks.items():
        try:
            is_seen = ray.get(looked)
        except ray.exceptions.RayError:
            continue  # the node is gone, and asks for nothing
        if not is_seen:
            raise InputError(
                f"output: {output} is not seen by the node {host}: put the experiment and its "
                "output on a file system that all nodes share, or name a folder in an object "
                "store, such as --set output=s3://bucket/folder"
            )


def _sees(lock: Path, content: bytes) -> bool:
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while time.monotonic() < deadline:
        if lock.exists() and lock.read_bytes() == content:
            return True
        time.sleep(0.1)
    return False
