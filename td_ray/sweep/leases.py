"""What a trial holds of its node's features, as long as it works with them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray

from td_ray.errors import MachineError, WorkError
from td_ray.features import Features, FeatureStore, Pass
from td_ray.spec import Experiment
from td_ray.sweep.cache_actor import SECONDS_BETWEEN_COUNTS, Lease, actor_name
from td_ray.tasks import DataSet
from td_ray.work.time_limit import TimeLimit

LOSSES_OF_ACTORS = 3
SECONDS_TO_START = 120.0
"""Of a node's cache actor."""


class Leases:
    """The features that one block holds on this node."""

    def __init__(
        self, passes: Mapping[str, Pass], experiment: Experiment, limit: TimeLimit
    ) -> None:
        self._passes = passes
        self._store = FeatureStore.of(experiment)
        self._limit = limit
        self._node = ray.get_runtime_context().get_node_id()
        self._held: list[str] = []

    def open(self, key: str, data: DataSet) -> Features:
        """Map the features of the block's representation on a data set.

        Raises:
            WorkError: they could not be extracted.
            MachineError: the same, for no fault of the model.
        """
        with self._limit.paused():
            lease = self._lease(key, self._passes[data.name])
        if lease.error is not None:
            raise (MachineError if lease.blame == "machine" else WorkError)(lease.error)
        self._held.append(key)
        return self._store.open(key)

    def release(self) -> None:
        """Give all of them back; an actor that was lost has forgotten them."""
        with suppress(ValueError):
            cache = ray.get_actor(actor_name(self._node))
            for key in self._held:
                cache.release.remote(key)

    def _lease(self, key: str, wanted: Pass) -> Lease:
        for _ in range(LOSSES_OF_ACTORS):
            try:
                lease: Lease = ray.get(self._cache().lease.remote(key, wanted))
                return lease
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError:  # the driver starts another
                time.sleep(SECONDS_BETWEEN_COUNTS)
        raise MachineError(
            f"the cache actor of node {self._node} was lost {LOSSES_OF_ACTORS} times; see Ray's "
            "logs of that node"
        )

    def _cache(self) -> Any:
        """This node's cache actor; on a node that has just joined it is about to be started."""
        asked = time.monotonic()
        while time.monotonic() - asked < SECONDS_TO_START:
            with suppress(ValueError):
                return ray.get_actor(actor_name(self._node))
            time.sleep(SECONDS_BETWEEN_COUNTS)
        raise MachineError(
            f"node {self._node} had no cache actor for {SECONDS_TO_START:g} s; see Ray's logs of "
            "that node"
        )
