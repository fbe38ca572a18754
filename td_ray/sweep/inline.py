"""All work in this process, one piece after the other: for tiny jobs, and for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from td_ray.features import FeatureStore
from td_ray.measures import Examples
from td_ray.plan import Block, Plan
from td_ray.plan.stand_ins import StandInBlock
from td_ray.plan.tiles import Tile
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep.progress import Reporter
from td_ray.work.extracting import OpenFeatures, open_from_store
from td_ray.work.heads import run_block
from td_ray.work.pairs import Reader, TaskData, examples_of, run_tile
from td_ray.work.search import search_block
from td_ray.work.stand_ins import run_stand_ins

AnyBlock = TypeVar("AnyBlock", Block, StandInBlock)


class Inline:
    """Workers that are this process."""

    def run_searches(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Train all candidates of blocks to the end, those of one unit together."""
        reporter.stage("searches", sum(map(len, blocks)))
        self._run(search_block, plan, blocks, reporter)

    def run_blocks(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Fit the heads of blocks."""
        reporter.stage("heads", sum(map(len, blocks)))
        self._run(run_block, plan, blocks, reporter)

    def run_stand_ins(self, plan: Plan, blocks: Sequence[StandInBlock], reporter: Reporter) -> None:
        """Fit stand-ins, and compare them with what they stand in for."""
        reporter.stage("stand-ins", sum(map(len, blocks)))
        self._run(run_stand_ins, plan, blocks, reporter)

    def _run(
        self,
        work: Callable[[AnyBlock, Experiment, Parts, OpenFeatures], tuple[int, int]],
        plan: Plan,
        blocks: Sequence[AnyBlock],
        reporter: Reporter,
    ) -> None:
        experiment = plan.problem.experiment
        store = FeatureStore.of(experiment)
        parts = Parts(experiment.output_folder)
        threads = torch.get_num_threads()
        try:
            for block in blocks:
                opened = open_from_store(block.passes, experiment, store, reporter.samples)
                reporter.advance(*work(block, experiment, parts, opened))
                store.evict(held=())
        finally:
            torch.set_num_threads(threads)  # the caller's process is not ours to keep changed

    def run_tiles(self, plan: Plan, tiles: Sequence[Tile], reporter: Reporter) -> None:
        """Compare the pairs of tiles."""
        experiment = plan.problem.experiment
        memory = experiment.resources.memory
        reader = Reader(Parts(experiment.output_folder), experiment.seeds, memory)
        reporter.stage("pairs", len(tiles))
        examples: dict[TaskData, Examples] = dict(examples_of(plan, tiles))
        for tile in tiles:
            run_tile(tile, examples[tile.task, tile.data], reader)
            reporter.advance()
