"""The nodes of a cluster as a run sees them: a cache actor on each, and what is gone or has come.

The driver starts the actors, also on nodes that join while work goes on, and starts those again
that were lost. Ray would do the latter itself, and could not stop: with an actor that needs memory,
or whose tasks do, it tries for ever.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from td_ray.errors import RunError
from td_ray.files import one_line
from td_ray.plan import Block
from td_ray.plan.stand_ins import StandInBlock
from td_ray.spec import Experiment
from td_ray.sweep.cache_actor import SECONDS_BETWEEN_COUNTS, FeatureCache, actor_name
from td_ray.sweep.progress import Reporter

STARTS = 3
"""Of an actor, before a run is given up that has just begun."""

Shares = Mapping[str, float]
"""Of a machine, by kind: CPU, GPU, memory in bytes."""


def nodes_alive() -> dict[str, Shares]:
    """What each node has in all, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def described(nodes: Mapping[str, Shares]) -> str:
    """What nodes have together, as people read it."""
    sums = {kind: sum(node.get(kind, 0.0) for node in nodes.values()) for kind in ("CPU", "GPU")}
    counts = [(len(nodes), "node"), *((int(count), kind) for kind, count in sums.items() if count)]
    words = [f"{count:,} {word}{'s' * (count != 1)}" for count, word in counts]
    return f"{' and '.join(words[1:]) or 'no CPU'} on {words[0]}"


def has_room(node: Shares, share: Shares) -> bool:
    """Whether a share fits into all that a node has."""
    return all(node.get(kind, 0.0) >= wanted for kind, wanted in share.items())


class NodeCaches:
    """The cache actors of a run, by node."""

    def __init__(self, experiment: Experiment) -> None:
        """Start one on each node.

        Raises:
            RunError: one does not start.
        """
        self._experiment = experiment
        self._actors: dict[str, ActorHandle] = {}
        self._counted: dict[str, int] = {}
        self._nodes = nodes_alive()
        errors: list[str] = []
        for _ in range(STARTS):
            self._start_missing()
            error = self._error_of_start()
            if error is None:
                return
            errors.append(one_line(error))
            time.sleep(SECONDS_BETWEEN_COUNTS)  # until its name is free
        raise RunError(f"a cache actor did not start: {errors[-1]}")

    def _error_of_start(self) -> ray.exceptions.RayError | None:
        """Why an actor is lost whose node is alive; None where there is none such."""
        for node, actor in list(self._actors.items()):
            try:
                ray.get(actor.held.remote())
            except ray.exceptions.RayError as error:
                del self._actors[node]
                if node in nodes_alive():
                    return error
        return None

    def kill(self) -> None:
        """End them all."""
        for actor in self._actors.values():
            ray.kill(actor)

    def nodes_with_features(
        self, blocks: Sequence[Block | StandInBlock], share: Shares
    ) -> dict[int, str]:
        """Blocks whose features are on exactly one of several nodes, if trials fit there."""
        nodes = nodes_alive()
        if len(nodes) < 2:
            return {}
        fitting = {node for node, there in nodes.items() if has_room(there, share)}
        holders: dict[str, list[str]] = defaultdict(list)
        for node, actor in self._actors.items():
            with suppress(ray.exceptions.RayError):  # it was lost; its features may be, too
                for key in ray.get(actor.held.remote()):
                    holders[key].append(node)
        only = {key: here[0] for key, here in holders.items() if len(here) == 1}
        found: dict[int, str] = {}
        for number, block in enumerate(blocks):
            here = [only[key] for key in block.feature_keys if only.get(key) in fitting]
            if here:
                found[number] = max(set(here), key=here.count)
        return found

    @contextmanager
    def listening(self, reporter: Reporter) -> Iterator[None]:
        """While work goes on: report samples, and have an actor on each node."""
        ended = Event()
        thread = Thread(target=self._listen, args=(reporter, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _listen(self, reporter: Reporter, ended: Event) -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(SECONDS_BETWEEN_COUNTS)
            reporter.samples(sum(self._more(node) for node in list(self._actors)))
            if not is_last:
                self._start_missing()
                self._tell_of_changes(reporter)

    def _tell_of_changes(self, reporter: Reporter) -> None:
        nodes = nodes_alive()
        if nodes.keys() != self._nodes.keys():
            reporter.say(f"there are now {described(nodes)}")
        self._nodes = nodes

    def _more(self, node: str) -> int:
        """Samples on a node since it was asked last; an actor that is lost is forgotten."""
        try:
            counted = self._actors[node].counted.remote()
            count: int = ray.get(counted, timeout=SECONDS_BETWEEN_COUNTS)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
            return 0  # it is being started, or busy
        except ray.exceptions.RayError:
            del self._actors[node]
            self._counted.pop(node, None)
            return 0
        more = count - self._counted.get(node, 0)
        self._counted[node] = count
        return more

    def _start_missing(self) -> None:
        """An actor needs no resources of its own, and belongs to the driver."""
        remote = ray.remote(FeatureCache)
        for node in nodes_alive().keys() - self._actors.keys():
            with suppress(ValueError):  # the lost one still has its name; the next time, then
                self._actors[node] = remote.options(
                    name=actor_name(node),
                    num_cpus=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                ).remote(node, self._experiment)
