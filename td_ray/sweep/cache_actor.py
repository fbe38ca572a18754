"""One actor per node that knows which features are on it, and has the missing ones made there.

It hands out paths, never arrays: a trial maps the file, and nothing dies with the actor. What is
leased is not evicted. It belongs to the driver, so that it does not outlive a killed run.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Literal

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from td_ray.errors import MachineError, error_text
from td_ray.features import FeatureStore, Pass
from td_ray.files import one_line
from td_ray.spec import Experiment
from td_ray.sweep.progress import Reporter

SECONDS_BETWEEN_COUNTS = 1.0


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
    """Tells a cache actor of samples, every second and at the end."""

    def __init__(self, cache: ActorHandle) -> None:
        self._cache, self._count, self._told = cache, 0, time.monotonic()

    def __call__(self, count: int) -> None:
        """So many more."""
        self._count += count
        if time.monotonic() - self._told >= SECONDS_BETWEEN_COUNTS:
            self.tell()

    def tell(self) -> None:
        """Tell of all that it was not told of; nobody waits for the answer."""
        self._cache.count.remote(self._count)
        self._count, self._told = 0, time.monotonic()


def extract(key: str, wanted: Pass, experiment: Experiment, cache: ActorHandle) -> Lease:
    """Extract features into the store of this node, and those of the same pass with them."""
    from td_ray.work.extracting import extract_into

    store = FeatureStore.of(experiment)
    counting = Counting(cache)
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
            try:
                me = ray.get_runtime_context().current_actor
                lease: Lease = await self._extract.remote(key, wanted, self._experiment, me)
            except ray.exceptions.RayError as lost:
                text = f"the process that extracted features was lost: {one_line(lost)}"
                lease = Lease(key, text)
        if lease.error is not None:
            self.release(key)
        else:
            await asyncio.to_thread(self._store.evict, set(self._leases))
        return lease

    def count(self, samples: int) -> None:
        """So many more samples have gone through networks on this node."""
        self._samples += samples

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


@contextmanager
def listening(caches: Sequence[ActorHandle], reporter: Reporter) -> Iterator[None]:
    """Report the samples that go through networks on all nodes, as long as work goes on."""
    ended = Event()
    thread = Thread(target=_listen, args=(caches, reporter, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _listen(caches: Sequence[ActorHandle], reporter: Reporter, ended: Event) -> None:
    known = [0] * len(caches)
    is_last = False
    while not is_last:
        is_last = ended.wait(SECONDS_BETWEEN_COUNTS)
        more = 0
        for number, cache in enumerate(caches):
            with suppress(ray.exceptions.RayError):  # an actor that is lost, or busy being started
                counted = ray.get(cache.counted.remote(), timeout=SECONDS_BETWEEN_COUNTS)
                more += counted - known[number] if counted > known[number] else 0
                known[number] = counted
        reporter.samples(more)
