"""When the heads of a plan are fitted, if some machines begin one model after the other.

Ray Tune begins trials in the order of the plan, each where there is room first, and not faster than
it can. A trial has its cores from its beginning to its end; where networks run on GPUs, it waits
for one of its node's. What one trial has extracted, others on the same node need not. Those that
share a GPU take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from td_ray.costs import Calibration
from td_ray.extraction import MOST_READERS
from td_ray.plan.pricing import PricedBlock, PricedPass
from td_ray.spec import Resources

SHARE_OF_MEMORY = 0.7
"""Of a node's, that Ray gives to trials; the rest is for its object store."""

NEAR = 0.7
"""A bound binds if it is at least this share of the time that a schedule takes."""


@dataclass(frozen=True)
class Hardware:
    """Machines of one kind.

    Attributes:
        cpus: of each node; ``gpus`` likewise.
        memory: of each node, in bytes; None if that is not known.
    """

    nodes: int
    cpus: int
    gpus: int
    memory: float | None = None

    def trials(self, resources: Resources, process_bytes: float) -> int:
        """How many trials a node has at once, of so many bytes each; none where none has room."""
        found = self.cpus // resources.cpus_per_trial
        if resources.gpus_per_trial:
            found = min(found, int(self.gpus / resources.gpus_per_trial))
        if self.memory is not None:  # what is larger than a node's memory gets all of it
            found = min(found, max(1, int(SHARE_OF_MEMORY * self.memory / process_bytes)))
        return found

    def extractions(self, resources: Resources, trials: int) -> int:
        """How many networks a node runs at once on GPUs that trials do not hold."""
        share = resources.gpus_per_extraction
        return max(1, int((self.gpus - trials * resources.gpus_per_trial) / share)) if share else 1


@dataclass(frozen=True)
class Course:
    """How the fits of a plan go.

    Attributes:
        seconds: from the beginning of the first to the end of the last.
        cores: seconds of cores that do something.
        gpus: seconds of GPUs likewise.
        cache_bytes: of features, on all nodes.
        bounds: times below which it cannot be, by what binds: ``cores``, ``GPUs``, ``trials`` that
            are begun one after the other, and ``longest``.
        longest: the representation whose trial takes longest.
    """

    seconds: float
    cores: float
    gpus: float
    cache_bytes: float
    bounds: dict[str, float]
    longest: str

    @property
    def binds(self) -> str:
        """The bound that is near; ``slots``, for trials at once, if none is."""
        largest = max(self.bounds, key=lambda name: self.bounds[name])
        return largest if self.bounds[largest] >= NEAR * self.seconds else "slots"


def course_of(
    stages: Sequence[Sequence[PricedBlock]],
    hardware: Hardware,
    resources: Resources,
    calibration: Calibration,
    process_bytes: float = 0.0,
) -> Course:
    """The course of some stages, each begun when the last has ended.

    Args:
        hardware: has room for a trial.
        process_bytes: what a trial takes of memory.
    """
    machines = _Machines(hardware, resources, calibration, process_bytes)
    lengths: list[tuple[float, str]] = []
    for blocks in stages:
        lengths += [(machines.run(block), block.who) for block in blocks]
        machines.wait()
    starting = calibration.trial * sum(block.is_trial for blocks in stages for block in blocks)
    longest = max(lengths, default=(0.0, ""))
    bounds = {
        "cores": (machines.cores + starting) / (hardware.nodes * hardware.cpus),
        "trials": starting,
        "longest": longest[0],
    }
    if machines.gpus:
        bounds["GPUs"] = machines.gpus / (hardware.nodes * hardware.gpus)
    seconds = max(machines.ended, bounds["cores"])
    kept = machines.cache_bytes
    return Course(seconds, machines.cores, machines.gpus, kept, bounds, longest[1])


class _Machines:
    """Slots for trials on all nodes, and for networks on their GPUs, with when each is free."""

    def __init__(
        self,
        hardware: Hardware,
        resources: Resources,
        calibration: Calibration,
        process_bytes: float,
    ) -> None:
        self._resources, self._calibration = resources, calibration
        nodes, trials = range(hardware.nodes), hardware.trials(resources, process_bytes)
        self._free = [(0.0, node) for node in nodes for _ in range(trials)]
        extractions = hardware.extractions(resources, trials)
        self._gpus = [[0.0] * extractions for _ in nodes]
        self._readers = max(1, min(MOST_READERS, hardware.cpus // extractions))
        self._extracted: dict[tuple[int, PricedPass], float] = {}
        self._next = 0.0  # when Tune can begin one more
        self.ended = 0.0
        self.cores = 0.0
        self.gpus = 0.0
        self.cache_bytes = 0.0

    def run(self, block: PricedBlock) -> float:
        """Run a block where there is room first; returns how long it takes if it never waits."""
        free, node = heappop(self._free)
        now = max(free, self._next)
        self._next = now + self._calibration.trial * block.is_trial
        for each in block.passes:
            now = self._extracted_at(node, each, now)
        prices = self._calibration
        besides = block.units * (prices.unit if block.is_trial else prices.stored)
        self.cores += block.cores + besides
        self.gpus += block.gpu
        fitting = block.cores / self._resources.cpus_per_trial + besides
        fitting += block.gpu / (min(1.0, self._resources.gpus_per_trial) or 1.0)
        self.ended = max(self.ended, now + fitting)
        heappush(self._free, (now + fitting, node))
        return sum(map(self._seconds, block.passes)) + fitting

    def wait(self) -> None:
        """Wait for all that is at work."""
        self._free = [(self.ended, node) for _, node in self._free]
        heapify(self._free)

    def _extracted_at(self, node: int, wanted: PricedPass, now: float) -> float:
        """When the features of a pass are on a node."""
        place = (node, wanted)
        if place in self._extracted:
            return max(now, self._extracted[place])
        self.cores += wanted.cores
        self.gpus += wanted.gpu
        self.cache_bytes += wanted.bytes
        begun = max(now, heappop(self._gpus[node])) if wanted.gpu else now
        ended = begun + self._seconds(wanted)
        if wanted.gpu:
            heappush(self._gpus[node], ended)
        self._extracted[place] = ended
        return ended

    def _seconds(self, wanted: PricedPass) -> float:
        """Of a pass that has its share of a GPU, or the cores of its trial."""
        if not wanted.gpu:
            return wanted.cores / self._resources.cpus_per_trial
        share = min(1.0, self._resources.gpus_per_extraction) or 1.0
        return max(wanted.gpu / share, wanted.cores / self._readers)
