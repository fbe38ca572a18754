"""The Ray side of a run: connect, schedule blocks and tiles, record what is lost too often."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import ray

from td_ray.errors import InputError, MachineError, WorkError
from td_ray.plan import Block, FeatureUnit, HeadUnit, Plan
from td_ray.plan.estimate import process_bytes
from td_ray.plan.stand_ins import StandInBlock
from td_ray.plan.tiles import Tile, tile_state
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.storage import Folder
from td_ray.sweep.connection import connected, require_answer
from td_ray.sweep.head import watched_head
from td_ray.sweep.lost import REMEDY, run_until_ended, words_of
from td_ray.sweep.map_tasks import map_tasks
from td_ray.sweep.nodes import NodeCaches, described, has_room, nodes_alive
from td_ray.sweep.progress import Reporter
from td_ray.sweep.races import run_races
from td_ray.sweep.squares import squares
from td_ray.sweep.tasks import compare_tiles, take_predictions
from td_ray.sweep.trials import AnyBlock, Placement, Work, run_trials
from td_ray.sweep.visibility import require_seen
from td_ray.work.head_parts import names_of, units_left
from td_ray.work.pairs import examples_of

MODELS_PER_TASK = 32


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


class OnRay:
    """Workers on a Ray cluster; connects when there is work."""

    def __init__(self, address: str | None, output: Folder, reporter: Reporter) -> None:
        self._address = address
        self._output = output
        self._reporter = reporter
        self._connection: ExitStack | None = None
        self._caches: NodeCaches | None = None

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
        if self._caches is not None:
            self._caches.kill()
        if self._connection is not None:
            self._connection.close()

    def run_searches(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Race the candidates of blocks as trials of Ray Tune."""
        experiment = plan.problem.experiment
        caches = self._prepare(experiment)
        reporter.stage("searches", sum(map(len, blocks)))
        placement = self._placement(plan, caches, blocks)
        with caches.listening(reporter):
            run_races(Work(experiment, blocks), placement, reporter)

    def run_blocks(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Fit heads as trials of Ray Tune; models that have their predictions come first."""
        experiment, parts = plan.problem.experiment, Parts(plan.problem.experiment.output_folder)
        reporter.stage("heads", sum(map(len, blocks)))
        stored = [block for block in blocks if block.is_stored]
        fitted = [block for block in blocks if not block.is_stored]

        def left_of(some: Sequence[Block]) -> list[HeadUnit | FeatureUnit]:
            return [unit for block in some for unit in units_left(block, parts)]

        def give_up(units: Sequence[HeadUnit | FeatureUnit], error: str) -> None:
            for unit in units:
                text = WorkError(f"{names_of(unit)}: {words_of(error, REMEDY)}")
                stage = "features" if isinstance(unit, FeatureUnit) else "heads"
                parts.write_failure(str(unit.key), stage, text)

        if stored:
            self._connect()
            run_until_ended(
                [
                    stored[start : start + MODELS_PER_TASK]
                    for start in range(0, len(stored), MODELS_PER_TASK)
                ],
                lambda some: sum(map(len, some)),
                lambda some: self._take_stored(some, experiment, reporter),
                left_of,
                give_up,
            )
        if fitted:
            caches = self._prepare(experiment)
            run_until_ended(
                fitted,
                len,
                lambda some: self._run_trials(plan, caches, some, reporter),
                lambda block: left_of([block]),
                give_up,
            )

    def run_stand_ins(self, plan: Plan, blocks: Sequence[StandInBlock], reporter: Reporter) -> None:
        """Fit stand-ins as trials of Ray Tune, where their features are."""
        experiment = plan.problem.experiment
        caches = self._prepare(experiment)
        reporter.stage("stand-ins", sum(map(len, blocks)))
        run_until_ended(
            blocks,
            len,
            lambda some: self._run_trials(plan, caches, some, reporter),
            lambda block: _tiles_left([t for u in block.units for t in u.tiles], experiment),
            lambda tiles, error: _give_up_tiles(tiles, experiment, error),
        )

    def run_tiles(self, plan: Plan, tiles: Sequence[Tile], reporter: Reporter) -> None:
        """Compare the pairs of tiles as Ray tasks."""
        self._connect()
        reporter.stage("pairs", len(tiles))
        experiment = plan.problem.experiment
        shared = (experiment, uuid.uuid4().hex)
        examples = {key: ray.put(each) for key, each in examples_of(plan, tiles)}

        def run(together: Sequence[Sequence[Tile]]) -> list[tuple[int, str]]:
            troubles: list[str] = []

            def ended(number: int, trouble: str) -> None:
                reporter.advance(len(together[number]))
                troubles.extend([trouble] if trouble else [])

            arguments = [(some, examples[some[0].task, some[0].data]) for some in together]
            lost = map_tasks(compare_tiles, arguments, ended, shared)
            if troubles:
                raise MachineError(troubles[0])
            return lost

        run_until_ended(
            [
                [tiles[place] for place in square]
                for square in squares(tiles, int(ray.cluster_resources().get("CPU", 1)))
            ],
            len,
            run,
            lambda some: _tiles_left(some, experiment),
            lambda some, error: _give_up_tiles(some, experiment, error),
        )

    def _run_trials(
        self,
        plan: Plan,
        caches: NodeCaches,
        blocks: Sequence[AnyBlock],
        reporter: Reporter,
    ) -> list[tuple[int, str]]:
        experiment = plan.problem.experiment
        placement = self._placement(plan, caches, blocks)
        with caches.listening(reporter):
            return run_trials(Work(experiment, blocks), placement, reporter)

    def _take_stored(
        self, chunks: Sequence[Sequence[Block]], experiment: Experiment, reporter: Reporter
    ) -> list[tuple[int, str]]:
        """Read predictions that are there: as tasks of many models, since nothing is fitted."""
        troubles: list[str] = []

        def ended(number: int, counts: tuple[int, int, str]) -> None:
            finished, failed, trouble = counts
            reporter.advance(finished, failed)
            troubles.extend([trouble] if trouble else [])

        lost = map_tasks(take_predictions, [(chunk,) for chunk in chunks], ended, (experiment,))
        if troubles:
            raise MachineError(troubles[0])
        return lost

    def _placement(self, plan: Plan, caches: NodeCaches, blocks: Sequence[AnyBlock]) -> Placement:
        """What a trial has of a machine; of memory, all of the largest node's at most."""
        resources = plan.problem.experiment.resources
        share = {"CPU": float(resources.cpus_per_trial)}
        if resources.gpus_per_trial:
            share["GPU"] = resources.gpus_per_trial
        fitting = [there for there in nodes_alive().values() if has_room(there, share)]
        if most := max((there.get("memory", 0.0) for there in fitting), default=0.0):
            share["memory"] = min(float(process_bytes(plan)), most)
        return Placement(share, caches.nodes_with_features(blocks, share))

    def _prepare(self, experiment: Experiment) -> NodeCaches:
        """Connect, and have a cache actor on each node."""
        self._connect()
        _require_room(experiment)
        if self._caches is None:
            self._caches = NodeCaches(experiment)
        return self._caches

    def _connect(self) -> None:
        if self._connection is not None:
            return
        if not ray.is_initialized():
            self._reporter.say("connecting to Ray")
        with ExitStack() as connection:
            connection.enter_context(connected(self._address))
            connection.enter_context(watched_head(self._reporter.say))
            require_seen(self._output)
            self._reporter.say(f"Ray has {described(nodes_alive())}")
            self._connection = connection.pop_all()


def _tiles_left(tiles: Sequence[Tile], experiment: Experiment) -> list[Tile]:
    parts = Parts(experiment.output_folder)
    return [tile for tile in tiles if tile_state(tile, parts) == "missing"]


def _give_up_tiles(tiles: Sequence[Tile], experiment: Experiment, error: str) -> None:
    """Write down the failure of tiles whose process was lost too often."""
    for tile in tiles:
        text = WorkError(words_of(error, REMEDY))
        Parts(experiment.output_folder).write_failure(tile.key, "pairs", text)
