"""Run an experiment: what is missing, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

from td_ray.compact import compact
from td_ray.errors import RunError
from td_ray.files import DigestMemory, remove_leftovers
from td_ray.plan import Block, Plan, make_plan
from td_ray.plan.resolve import resolve
from td_ray.plan.stand_ins import StandInBlock, stand_in_blocks
from td_ray.plan.tiles import StandInTile, Tile, plan_tiles, tile_state
from td_ray.results.manifest import read_manifest, write_manifest
from td_ray.results.parts import Parts
from td_ray.results.tables import Results, open_results
from td_ray.spec import Experiment
from td_ray.storage import Folder, held
from td_ray.sweep.progress import Quiet, Reporter
from td_ray.tasks import Task

Backend = Literal["ray", "inline"]


class Workers(Protocol):
    """Where work is done. Each piece of work leaves its part, or its failure, on disk."""

    def run_searches(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Choose among the candidates of blocks."""

    def run_blocks(self, plan: Plan, blocks: Sequence[Block], reporter: Reporter) -> None:
        """Fit the heads of blocks."""

    def run_stand_ins(self, plan: Plan, blocks: Sequence[StandInBlock], reporter: Reporter) -> None:
        """Fit stand-ins, and compare them with what they stand in for."""

    def run_tiles(self, plan: Plan, tiles: Sequence[Tile], reporter: Reporter) -> None:
        """Compare the pairs of tiles."""


def run(
    experiment: Experiment,
    *,
    backend: Backend = "ray",
    address: str | None = None,
    retry_failed: bool = False,
    reporter: Reporter | None = None,
) -> Results:
    """Run an experiment; finished units are not repeated.

    Args:
        experiment: what to run.
        backend: ``ray``, or ``inline`` for this process alone, without Ray.
        address: of a Ray cluster; by default ``RAY_ADDRESS``, or one started for this run.
        retry_failed: also try units again whose failure is on record.
        reporter: hears about progress.

    Returns:
        The results; units that failed are in its ``failures``.

    Raises:
        InputError: bad input; nothing was spent.
        RunError: no unit finished, or the run could not go on.
    """
    reporter = reporter or Quiet()
    problem = resolve(experiment)
    parts = Parts(experiment.output_folder)
    manifest = read_manifest(parts.output, experiment)
    digest = DigestMemory(experiment.cache_path).computed
    if retry_failed:
        _forget_failures(make_plan(problem, manifest, parts, digest), parts)
    plan = make_plan(problem, manifest, parts, digest)
    _prepare_targets([unit.task for block in plan.blocks for unit in block.units], reporter)
    if backend == "inline" and "time_limit" in experiment.resources.model_fields_set:
        reporter.say("resources.time_limit: ignored by 'inline', whose process has to stay")
    with (
        _workers(backend, address, parts.output, reporter) as workers,
        held(parts.output, reporter.say),
    ):
        if read_manifest(parts.output, experiment) != manifest:  # another run has just ended
            manifest = read_manifest(parts.output, experiment)
            plan = make_plan(problem, manifest, parts, digest)
        if parts.output.local is not None:
            remove_leftovers(parts.output.local)  # of a run that was killed
        for name in parts.remove_damaged():
            reporter.say(f"{name} was damaged, and is made anew")
        write_manifest(parts.output, plan.manifest, experiment)
        if plan.searches:
            workers.run_searches(plan, plan.searches, reporter)
            plan = make_plan(problem, manifest, parts, digest)  # without what has failed by now
        if plan.blocks:
            workers.run_blocks(plan, plan.blocks, reporter)
            parts.look()
        tiles = plan_tiles(plan, parts)
        missing = [tile for tile in tiles if tile_state(tile, parts) == "missing"]
        if missing:
            _prepare_targets(_tasks_with_truth(plan, missing), reporter)
            _compare(workers, plan, missing, reporter)
        parts.look()
        write_manifest(parts.output, plan.manifest, experiment)  # a folder may have been emptied
        compact(plan, tiles, parts)
    left = make_plan(problem, manifest, parts, digest).count("missing")
    left += sum(tile_state(tile, parts) == "missing" for tile in tiles)
    if left:
        raise RunError(
            f"the run ended with {left} units neither finished nor recorded as failed; "
            "the same command goes on from here"
        )
    results = open_results(parts.output)
    if results.heads().empty:
        first = results.failures().iloc[0]
        raise RunError(f"all {len(results.failures())} units failed; the first: {first['error']}")
    return results


def _compare(workers: Workers, plan: Plan, missing: Sequence[Tile], reporter: Reporter) -> None:
    """Tiles of stand-ins need features, and go where they are; all others need parts alone."""
    stand_ins = [tile for tile in missing if isinstance(tile, StandInTile)]
    others = [tile for tile in missing if not isinstance(tile, StandInTile)]
    if others:
        workers.run_tiles(plan, others, reporter)
    if stand_ins:
        workers.run_stand_ins(plan, stand_in_blocks(plan, stand_ins), reporter)


def _tasks_with_truth(plan: Plan, tiles: Sequence[Tile]) -> list[Task]:
    """The tasks of tiles whose true classes are needed, and were not when no head was missing."""
    fitted = {unit.task.name for block in plan.blocks for unit in block.units}
    names = {tile.task for tile in tiles} - fitted
    return [task for task in plan.problem.tasks if task.is_classification and task.name in names]


def _prepare_targets(tasks: Iterable[Task], reporter: Reporter) -> None:
    """Compute targets that come from inputs once, here, and not once in every worker."""
    wanted = {id(task.target): task for task in tasks if task.target.reads_inputs}.values()
    for name in dict.fromkeys(task.spec.name for task in wanted):
        reporter.say(f"targets of '{name}': read from the inputs")
    for task in wanted:
        task.target.values(task.data)


def _forget_failures(plan: Plan, parts: Parts) -> None:
    """Of units, and of the tiles of pairs that these make up so far."""
    keys = [unit.key for unit in plan.units] + [unit.key for unit in plan.kept]
    for key, state in zip(keys, plan.states + plan.kept_states, strict=True):
        if state == "failed":
            parts.clear_failure(str(key))
    for tile in plan_tiles(plan, parts):
        if tile_state(tile, parts) == "failed":
            parts.clear_failure(tile.key)


@contextmanager
def _workers(
    backend: Backend, address: str | None, output: Folder, reporter: Reporter
) -> Iterator[Workers]:
    if backend == "inline":
        from td_ray.sweep.inline import Inline

        yield Inline()
        return
    from td_ray.sweep.cluster import OnRay

    with OnRay(address, output, reporter) as workers:
        yield workers
