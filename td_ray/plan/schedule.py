"""When the heads of a plan are fitted, if some machines begin one model after the other.

Ray Tune begins trials in the order of the plan, each where there is room first, and not faster than
it can. A trial has its cores from its beginning to its end; where networks run on GPUs, it waits
for one of its node's. What one trial has extracted, others on the same node need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from td_ray.costs import Calibration
from td_ray.plan.pricing import PricedBlock, PricedPass
from td_ray.spec import Resources

MOST_READERS = 8
"""Threads that prepare the inputs of one network."""


@dataclass(frozen=True)
class Hardware:
    """Machines of one kind.

    Attributes:
        cpus: of each node; ``gpus`` likewise.
    """

    nodes: int
    cpus: int
    gpus: int

    def trials(self, resources: Resources) -> int:
        """How many trials a node has at once; none where it has no room for one."""
        found = self.cpus // resources.cpus_per_trial
        if resources.gpus_per_trial:
            found = min(found, int(self.gpus / resources.gpus_per_trial))
        return found

    def extractions(self, resources: Resources) -> int | None:
        """How many networks a node runs at once on its GPUs; None where they run on the cores."""
        share = resources.gpus_per_extraction
        return int(self.gpus / share) if share else None

    def preparing(self, resources: Resources) -> int:
        """Cores of a node that prepare the inputs of one network that runs on a GPU."""
        extractions = self.extractions(resources) or 1
        return max(1, min(MOST_READERS, self.cpus // extractions))


@dataclass(frozen=True)
class Course:
    """How the fits of a plan go.

    Attributes:
        seconds: from the beginning of the first to the end of the last.
        cores: seconds of cores that do something.
        gpus: seconds of GPUs likewise.
        bounds: below which no number of machines of one kind brings ``seconds``, by what binds.
    """

    seconds: float
    cores: float
    gpus: float
    bounds: dict[str, float]


def course_of(
    blocks: Sequence[PricedBlock],
    hardware: Hardware,
    resources: Resources,
    calibration: Calibration,
) -> Course:
    """The course of fitting some blocks on machines that have room for a trial each."""
    machines = _Machines(hardware, resources, calibration)
    lengths = {block.who: machines.run(block) for block in blocks}
    starting = calibration.trial * sum(block.is_trial for block in blocks)
    everything = hardware.nodes * hardware.cpus
    longest = max(lengths, key=lambda who: lengths[who], default="")
    bounds = {
        "cores": (machines.cores + starting) / everything,
        "trials": starting,
        f"model '{longest}'": lengths.get(longest, 0.0),
    }
    if machines.gpus:
        share = resources.gpus_per_extraction or resources.gpus_per_trial
        bounds["GPUs"] = machines.gpus * share / (hardware.nodes * hardware.gpus)
    seconds = max(machines.ended, bounds["cores"])
    return Course(seconds, machines.cores, machines.gpus, bounds)


class _Machines:
    """Slots for trials on all nodes, and for networks on their GPUs, with when each is free."""

    def __init__(self, hardware: Hardware, resources: Resources, calibration: Calibration) -> None:
        self._resources, self._calibration = resources, calibration
        nodes = range(hardware.nodes)
        self._free = [(0.0, node) for node in nodes for _ in range(hardware.trials(resources))]
        heapify(self._free)
        extractions = hardware.extractions(resources)
        self._gpus = None if extractions is None else [[0.0] * extractions for _ in nodes]
        self._preparing = hardware.preparing(resources)
        self._extracted: dict[tuple[int, str], float] = {}
        self._next = 0.0  # when Tune can begin one more
        self.ended = 0.0
        self.cores = 0.0
        self.gpus = 0.0

    def run(self, block: PricedBlock) -> float:
        """Run a block where there is room first; returns how long it was at work."""
        free, node = heappop(self._free)
        begun = now = max(free, self._next)
        self._next = begun + self._calibration.trial * block.is_trial
        for each in block.passes:
            now = self._extracted_at(node, each, now)
        threads, on_gpu = self._resources.cpus_per_trial, self._resources.gpus_per_trial > 0
        fitting = block.heads if on_gpu else block.heads / threads
        besides = self._calibration.unit * block.units
        self.cores += besides + (0.0 if on_gpu else block.heads)
        self.gpus += block.heads * on_gpu
        now += fitting + besides
        self.ended = max(self.ended, now)
        heappush(self._free, (now, node))
        return now - begun

    def _extracted_at(self, node: int, wanted: PricedPass, now: float) -> float:
        """When the features of a pass are on a node."""
        place = (node, wanted.who)
        if place in self._extracted:
            return max(now, self._extracted[place])
        self.cores += wanted.cores
        self.gpus += wanted.gpu
        if self._gpus is None or not wanted.gpu:
            ended = now + wanted.cores / self._resources.cpus_per_trial
        else:
            begun = max(now, heappop(self._gpus[node]))
            ended = begun + max(wanted.gpu, wanted.cores / self._preparing)
            heappush(self._gpus[node], ended)
        self._extracted[place] = ended
        return ended
