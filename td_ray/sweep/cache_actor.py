"""One actor per node that knows which features are on it, and has the missing ones made there.

It hands out paths, never arrays: a trial maps the file, and nothing dies with the actor. What is
leased is not evicted. It belongs to the driver, so that it does not outlive a killed run.

A model that hangs, or whose process is lost too often, is given up on this node: for its other
layers too, which would fare alike.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from td_ray.errors import MachineError, error_text
from td_ray.features import FeatureStore, Pass
from td_ray.spec import Experiment
from td_ray.sweep.lost import words_of

SECONDS_BETWEEN_COUNTS = 1.0
MOST_STARTS = 5
"""Of one pass. In a cluster that others have started, Ray may start one again for ever."""
REMEDY = (
    "a smaller resources.batch_size needs less, and more resources.cpus_per_trial let fewer models "
    "share a node"
)


@dataclass(frozen=True)
class Lease:
    """An array that stays on the node until it is released, or why it cannot be had.

    Attributes:
        error: why not; None where it is there.
        blame: whether that is the ``model``'s own trouble or the ``machine``'s.
    """

    key: str
    error: str | None = None
    blame: Literal["model", "machine"] = "model"


def actor_name(node: str) -> str:
    """The name of a node's actor in the run's namespace."""
    return f"features-{node}"


def with_share(experiment: Experiment, gpus: float) -> Experiment:
    """The experiment as a worker sees it: ``auto`` is a GPU only where a share of one was given.

    Ray leaves GPUs visible to work that asked for none.
    """
    resources = experiment.resources
    if resources.device != "auto" or gpus:
        return experiment
    cpu = resources.model_copy(update={"device": "cpu"})
    return experiment.model_copy(update={"resources": cpu})


class Counting:
    """Tells a cache actor of a pass's samples: at first, every second, and at the end."""

    def __init__(self, cache: ActorHandle, who: str) -> None:
        self._cache, self._who = cache, who
        self._count, self._told = 0, -SECONDS_BETWEEN_COUNTS

    def __call__(self, count: int) -> None:
        """So many more."""
        self._count += count
        if time.monotonic() - self._told >= SECONDS_BETWEEN_COUNTS:
            self.tell()

    def tell(self) -> None:
        """Tell of all that it was not told of; nobody waits for the answer."""
        self._cache.count.remote(self._who, self._count)
        self._count, self._told = 0, time.monotonic()


def extract(key: str, wanted: Pass, experiment: Experiment, cache: ActorHandle) -> Lease:
    """Extract features into the store of this node, and those of the same pass with them."""
    from td_ray.work.extracting import extract_into

    store = FeatureStore.of(experiment)
    cache.begin.remote(wanted.who, os.getpid())
    counting = Counting(cache, wanted.who)
    try:
        extract_into(store, key, wanted, experiment, counting)
    except (OSError, MachineError) as error:
        return Lease(key, str(error), "machine")
    except Exception as error:  # one model's trouble costs that model alone
        return Lease(key, error_text(error))
    finally:
        counting.tell()
    return Lease(key)


class FeatureCache:
    """Leases on the feature arrays of one node."""

    def __init__(self, node: str, experiment: Experiment) -> None:
        resources = experiment.resources
        self._experiment = with_share(experiment, resources.gpus_per_extraction)
        self._store = FeatureStore.of(experiment)
        self._leases: Counter[str] = Counter()
        self._samples = 0
        self._heard: dict[str, float] = {}
        self._starts: Counter[str] = Counter()
        self._process: dict[str, int] = {}
        self._given_up: dict[str, str] = {}
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        # The trial that waits holds the CPUs; asking for one more could wait for ever.
        self._extract = ray.remote(extract).options(
            num_cpus=0, num_gpus=resources.gpus_per_extraction, scheduling_strategy=here
        )

    async def lease(self, key: str, wanted: Pass) -> Lease:
        """Have an array on this node, made once however many ask, and hold it."""
        self._leases[key] += 1
        async with self._making[wanted.who]:
            if await asyncio.to_thread(self._store.valid, key):
                return Lease(key)
            lease = await self._made(key, wanted)
        if lease.error is not None:
            self.release(key)
        else:
            await asyncio.to_thread(self._store.evict, set(self._leases))
        return lease

    async def _made(self, key: str, wanted: Pass) -> Lease:
        """Have an array made, unless its model has been given up."""
        who = wanted.who
        if who in self._given_up:
            return Lease(key, self._given_up[who])
        self._heard.pop(who, None)
        self._starts[who] = 0
        me = ray.get_runtime_context().current_actor
        task = self._extract.remote(key, wanted, self._experiment, me)
        watching = asyncio.create_task(self._watch(who, task))
        try:
            lease: Lease = await task
        except ray.exceptions.RayError as lost:
            if who not in self._given_up:
                self._given_up[who] = f"{who}: {words_of(str(lost), REMEDY)}"
            lease = Lease(key, self._given_up[who])
        finally:
            watching.cancel()
        return lease

    async def _watch(self, who: str, task: ray.ObjectRef) -> None:
        """End a pass, once begun, of which nothing is heard for too long, or that never ends."""
        limit = self._experiment.resources.time_limit
        silent = limit + SECONDS_BETWEEN_COUNTS
        while time.monotonic() - self._heard.get(who, math.inf) <= silent:
            if not _is_alive(self._process.get(who)):
                self._heard.pop(who, None)  # Ray starts it again, in its own time
            if self._starts[who] > MOST_STARTS:
                self._given_up[who] = (
                    f"{who}: its process was lost {MOST_STARTS} times, likely for memory; {REMEDY}"
                )
                break
            await asyncio.sleep(SECONDS_BETWEEN_COUNTS)
        else:
            self._given_up[who] = (
                f"{who}: no sample went through for {limit:g} s, and its process was ended; if a "
                "batch only needs more time, give it a larger resources.time_limit"
            )
        ray.cancel(task, force=True)

    def begin(self, who: str, process: int) -> None:
        """A process of this node, by its number, is about to begin a pass."""
        self._starts[who] += 1
        self._process[who] = process

    def count(self, who: str, samples: int) -> None:
        """So many more samples have gone through the network of a pass."""
        self._samples += samples
        self._heard[who] = time.monotonic()

    def counted(self) -> int:
        """How many there were since this actor was started."""
        return self._samples

    def release(self, key: str) -> None:
        """Give a lease back."""
        self._leases[key] -= 1
        if self._leases[key] <= 0:
            del self._leases[key]

    def held(self) -> list[str]:
        """Keys of the arrays on this node."""
        return [entry.key for entry in self._store.entries()]


def _is_alive(process: int | None) -> bool:
    if process is None:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
