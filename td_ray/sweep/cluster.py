"""The Ray side of a run: connect, start one cache actor per node, schedule blocks and tiles."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from td_ray.errors import InputError, MachineError, RunError, WorkError
from td_ray.measures import Examples
from td_ray.plan import Block, Plan
from td_ray.plan.stand_ins import StandInBlock
from td_ray.plan.tiles import Tile
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep.cache_actor import FeatureCache, actor_name, listening
from td_ray.sweep.host_signals import handlers_given_back
from td_ray.sweep.progress import Reporter
from td_ray.sweep.races import run_races
from td_ray.sweep.squares import squares
from td_ray.sweep.trials import AnyBlock, Work, run_trials
from td_ray.work.pairs import examples_of
from td_ray.work.taken_predictions import take_block

TASKS_IN_FLIGHT_PER_CPU = 2
MODELS_PER_TASK = 32
SECONDS_TO_ANSWER = 5.0

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they write five files a trial
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's boxes, which verbose=0 leaves
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning in each process
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # else SIGTERM prints a C++ trace, then kills
    "RAY_task_oom_retries": "3",  # by default a task that needs too much memory is retried for ever
}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use the Ray that is there, or connect to ``address``, or start one for the time being.

    Raises:
        InputError: no cluster answers at the address.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        with handlers_given_back():
            ray.init(
                address=address,
                namespace=f"td-ray-{uuid.uuid4().hex}",
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"no Ray cluster could be used at '{address}': {first}; is the token that "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH names the cluster's?"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def require_answer(address: str | None) -> None:
    """Refuse an address that nothing listens at; Ray itself would try for minutes.

    Raises:
        InputError: nothing answers there.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at '{address}' ({error}); start one, or leave --address out "
            "and unset RAY_ADDRESS"
        ) from None


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
        Tasks that raised or whose processes were lost too often, with the last error.
    """
    remote = ray.remote(function)
    common = [ray.put(value) for value in shared]
    waiting = list(enumerate(arguments))[::-1]
    flying: dict[ray.ObjectRef, int] = {}
    lost: list[tuple[int, str]] = []
    bound = max(2, TASKS_IN_FLIGHT_PER_CPU * int(ray.cluster_resources().get("CPU", 1)))
    while waiting or flying:
        while waiting and len(flying) < bound:
            number, values = waiting.pop()
            flying[remote.remote(*values, *common)] = number
        ready, _ = ray.wait(list(flying), num_returns=1)
        for reference in ready:
            number = flying.pop(reference)
            try:
                each(number, ray.get(reference))
            except ray.exceptions.RayError as error:
                lost.append((number, str(error).strip().splitlines()[-1]))
    return lost


def _require_room(experiment: Experiment) -> None:
    """Refuse shares that no node has; Ray would wait for one for ever.

    Raises:
        InputError: which share, and what the largest node has.
    """
    resources = experiment.resources
    wanted = {
        "cpus_per_trial": ("CPU", resources.cpus_per_trial),
        "gpus_per_trial": ("GPU", resources.gpus_per_trial),
        "gpus_per_extraction": ("GPU", resources.gpus_per_extraction),
    }
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, (kind, share) in wanted.items():
        most = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        if share > most:
            raise InputError(
                f"resources.{name} is {share:g}, and no node has more than {most:g} {kind}s; "
                "ask for less"
            )


def _scratch(experiment: Experiment) -> Path:
    """A folder for Tune's own files."""
    return experiment.output_path / f".tune-{uuid.uuid4().hex[:8]}.tmp"


def _compare(tiles: Sequence[Tile], examples: Examples, experiment: Experiment, stage: str) -> str:
    """Compare tiles of one task; returns the trouble that the machine had, if any."""
    from td_ray.work.pairs import run_tile

    memory = experiment.resources.memory
    reader = _reader(stage, experiment.output_path, experiment.seeds, memory)
    try:
        for tile in tiles:
            if not reader.parts.has_pairs(tile.key):  # as where a lost process had begun
                run_tile(tile, examples, reader)
    except OSError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _reader(stage: str, output: Path, seeds: tuple[int, ...], memory: int | None) -> Any:
    """What a worker process reads predictions with, as long as tiles of one stage come."""
    from td_ray.work.pairs import Reader

    return Reader(Parts(output), seeds, memory)


def _take(blocks: Sequence[Block], experiment: Experiment) -> tuple[int, int, str]:
    """Take the predictions of models that have them: units finished, failed, and the trouble."""
    parts, finished, failed = Parts(experiment.output_path), 0, 0
    try:
        for block in blocks:
            done = take_block(block, experiment, parts)
            finished, failed = finished + done[0], failed + done[1]
    except (OSError, MachineError) as error:
        return finished, failed, str(error)
    return finished, failed, ""


class OnRay:
    """Workers on a Ray cluster; connects when there is work."""

    def __init__(self, address: str | None, reporter: Reporter) -> None:
        self._address = address
        self._reporter = reporter
        self._connection = connected(address)
        self._is_connected = False
        self._caches: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            require_answer(self._address or os.environ.get("RAY_ADDRESS"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for cache in self._caches.values():
            ray.kill(cache)
        if self._is_connected:
            self._connection.__exit__(kind, error, trace)

    def run_searches(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Race the candidates of blocks as trials of Ray Tune."""
        experiment = plan.problem.experiment
        self._prepare(experiment)
        reporter.stage("searches", sum(map(len, blocks)))
        nodes = self._nodes_with_features(blocks, experiment.resources.cpus_per_trial)
        with listening(list(self._caches.values()), reporter):
            run_races(Work(experiment, blocks), nodes, _scratch(experiment), reporter)

    def run_blocks(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Fit heads as trials of Ray Tune; models that have their predictions come first."""
        experiment = plan.problem.experiment
        reporter.stage("heads", sum(map(len, blocks)))
        stored = [block for block in blocks if block.is_stored]
        fitted = [block for block in blocks if not block.is_stored]
        if stored:
            self._connect()
            self._take_stored(stored, experiment, reporter)
        if not fitted:
            return
        self._prepare(experiment)
        nodes = self._nodes_with_features(fitted, experiment.resources.cpus_per_trial)
        with listening(list(self._caches.values()), reporter):
            lost = run_trials(Work(experiment, fitted), nodes, _scratch(experiment), reporter)
        for number, error in lost:
            self._give_up([fitted[number]], experiment, error)

    def run_stand_ins(self, plan: Plan, blocks: Sequence[StandInBlock], reporter: Reporter) -> None:
        """Fit stand-ins as trials of Ray Tune, where their features are."""
        experiment = plan.problem.experiment
        self._prepare(experiment)
        reporter.stage("stand-ins", sum(map(len, blocks)))
        nodes = self._nodes_with_features(blocks, experiment.resources.cpus_per_trial)
        with listening(list(self._caches.values()), reporter):
            lost = run_trials(Work(experiment, blocks), nodes, _scratch(experiment), reporter)
        for number, error in lost:
            self._give_up_tiles(
                [tile for unit in blocks[number].units for tile in unit.tiles], experiment, error
            )

    def _take_stored(
        self, blocks: Sequence[Block], experiment: Experiment, reporter: Reporter
    ) -> None:
        """Read predictions that are there: as tasks of many models, since nothing is fitted."""
        chunks = [
            blocks[start : start + MODELS_PER_TASK]
            for start in range(0, len(blocks), MODELS_PER_TASK)
        ]
        troubles: list[str] = []

        def ended(number: int, counts: tuple[int, int, str]) -> None:
            finished, failed, trouble = counts
            reporter.advance(finished, failed)
            troubles.extend([trouble] if trouble else [])

        for number, error in map_tasks(_take, [(chunk,) for chunk in chunks], ended, (experiment,)):
            self._give_up(chunks[number], experiment, error)
        if troubles:
            raise MachineError(troubles[0])

    def _give_up(self, blocks: Sequence[Block], experiment: Experiment, error: str) -> None:
        """Write down the failure of units whose process was lost too often."""
        parts = Parts(experiment.output_path)
        text = f"its process was lost too often: {error.strip().splitlines()[-1]}"
        for block in blocks:
            for unit in block.units:
                if not parts.has_heads(str(unit.key), unit.runs):
                    parts.write_failure(str(unit.key), "heads", WorkError(text))
            for kept in block.kept:
                if not parts.has_features(str(kept.key)):
                    parts.write_failure(str(kept.key), "features", WorkError(text))

    def run_tiles(self, plan: Plan, tiles: Sequence[Tile], reporter: Reporter) -> None:
        """Compare the pairs of tiles as Ray tasks."""
        self._connect()
        reporter.stage("pairs", len(tiles))
        troubles: list[str] = []

        together = [
            [tiles[place] for place in square]
            for square in squares(tiles, int(ray.cluster_resources().get("CPU", 1)))
        ]

        def ended(number: int, trouble: str) -> None:
            reporter.advance(len(together[number]))
            troubles.extend([trouble] if trouble else [])

        shared = (plan.problem.experiment, uuid.uuid4().hex)
        examples = {key: ray.put(each) for key, each in examples_of(plan, tiles)}
        arguments = [(some, examples[some[0].task, some[0].data]) for some in together]
        for number, error in map_tasks(_compare, arguments, ended, shared):
            self._give_up_tiles(together[number], plan.problem.experiment, error)
        if troubles:
            raise MachineError(troubles[0])

    def _give_up_tiles(self, tiles: Sequence[Tile], experiment: Experiment, error: str) -> None:
        """The same of tiles."""
        parts = Parts(experiment.output_path)
        for tile in tiles:
            if not parts.has_pairs(tile.key):
                parts.write_failure(tile.key, "pairs", WorkError(error.strip().splitlines()[-1]))

    def _prepare(self, experiment: Experiment) -> None:
        """Connect, and have a cache actor on each node."""
        self._connect()
        _require_room(experiment)
        if not self._caches:
            self._start_caches(experiment)

    def _connect(self) -> None:
        if not self._is_connected:
            if not ray.is_initialized():
                self._reporter.say("connecting to Ray")
            self._connection.__enter__()
            self._is_connected = True

    def _start_caches(self, experiment: Experiment) -> None:
        """One cache actor on each node; it needs no resources of its own."""
        actor = ray.remote(FeatureCache)
        for node in (node["NodeID"] for node in ray.nodes() if node["Alive"]):
            self._caches[node] = actor.options(
                name=actor_name(node),
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(node, experiment)
        try:
            ray.get([cache.held.remote() for cache in self._caches.values()])
        except ray.exceptions.RayError as error:
            raise RunError(f"a cache actor did not start: {error}") from None

    def _nodes_with_features(
        self, blocks: Sequence[AnyBlock], cpus_per_trial: int
    ) -> Mapping[int, str]:
        """Blocks whose features are on exactly one of several nodes, if trials fit there."""
        if len(self._caches) < 2:
            return {}
        cpus = {node["NodeID"]: node["Resources"].get("CPU", 0) for node in ray.nodes()}
        holders: dict[str, list[str]] = defaultdict(list)
        for node, cache in self._caches.items():
            for key in ray.get(cache.held.remote()):
                holders[key].append(node)
        nodes = {
            key: here[0]
            for key, here in holders.items()
            if len(here) == 1 and cpus[here[0]] >= cpus_per_trial
        }
        found: dict[int, str] = {}
        for number, block in enumerate(blocks):
            here = [nodes[key] for key in block.feature_keys if key in nodes]
            if here:
                found[number] = max(set(here), key=here.count)
        return found
