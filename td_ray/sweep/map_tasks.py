"""Many calls of one function as Ray tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

TASKS_IN_FLIGHT_PER_CPU = 2


def map_tasks(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    each: Callable[[int, Any], None],
    shared: tuple[Any, ...] = (),
) -> list[tuple[int, str]]:
    """Call a function as Ray tasks of one CPU, a bounded number in flight.

    Args:
        function: called with one item of ``arguments``, then ``shared``.
        arguments: one tuple per task; references to objects in the store become the objects.
        each: gets the number of a task that ended and what it returned.
        shared: arguments of all tasks; put into the object store once.

    Returns:
        Tasks that raised or whose processes were lost too often, with what Ray says of the last.
    """
    remote = ray.remote(function)
    common = [ray.put(value) for value in shared]
    waiting = list(enumerate(arguments))[::-1]
    flying: dict[ray.ObjectRef, int] = {}
    lost: list[tuple[int, str]] = []
    while waiting or flying:
        cpus = int(ray.cluster_resources().get("CPU", 1))  # nodes come and go
        bound = max(2, TASKS_IN_FLIGHT_PER_CPU * cpus)
        while waiting and len(flying) < bound:
            number, values = waiting.pop()
            flying[remote.remote(*values, *common)] = number
        ready, _ = ray.wait(list(flying), num_returns=1)
        for reference in ready:
            number = flying.pop(reference)
            try:
                each(number, ray.get(reference))
            except ray.exceptions.RayError as error:
                lost.append((number, str(error)))
    return lost
