"""The size of what is left of a plan: heads, pairs, bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from td_ray.features import FeatureStore
from td_ray.measures import fitting
from td_ray.measures.features import feature_measures
from td_ray.memory import default_memory
from td_ray.plan.tiles import StandInTile, Tile, plan_tiles, tile_state
from td_ray.plan.units import HeadUnit, Plan, State, fits_of
from td_ray.plan.widths import Widths
from td_ray.results.parts import Parts
from td_ray.zoo import FeatureSource, Representation

BYTES_OF_PROCESS = 400 * 2**20
"""What it has for itself, before it has any data: Python, torch, Ray."""
COPIES_OF_SOLVERS = 3

LEFT: tuple[State, ...] = ("missing", "unknown")
"""States of what a run would do."""


@dataclass(frozen=True)
class Estimate:
    """The size of what is left to do.

    Attributes:
        heads: head fits left, halves included.
        searches: units that have to choose among candidates first.
        candidates: of all those searches.
        stand_ins: heads to fit for measures of stand-ins, beside ``heads``.
        pairs: pairs of representations, over all tasks, heads and data sets.
        pairs_finished: those of them that are there.
        pairs_failed: those whose failure is on record.
        feature_bytes: of the arrays that the plan reads, with assumed widths where unknown.
        extractions: arrays that are not in the cache.
        kept_bytes: of features that are left to keep in the output folder, before compression.
        probability_bytes: of the classes' probabilities that are left to write, before compression.
        trial_bytes: memory that one trial may take, beyond mapped features.
        widths_assumed: whether some feature width was not known.
    """

    heads: int
    searches: int
    candidates: int
    stand_ins: int
    pairs: int
    pairs_finished: int
    pairs_failed: int
    feature_bytes: int
    extractions: int
    kept_bytes: int
    probability_bytes: int
    trial_bytes: int
    widths_assumed: bool


def estimate(plan: Plan, parts: Parts, tiles: Sequence[Tile] | None = None) -> Estimate:
    """Estimate what is left of a plan.

    Args:
        tiles: of the units that are there, if they are known already.
    """
    experiment = plan.problem.experiment
    store = FeatureStore.of(experiment)
    widths = Widths(experiment)
    sizes: dict[Any, int] = {}  # of each array, in bytes
    heads, assumed, probability_bytes = 0, False, 0
    kept_bytes = 0
    for kept in (unit for block in plan.blocks for unit in block.kept):
        keys = {kept.data.name: kept.features}
        assumed |= widths.known(kept.representation, keys) is None
        row = widths.of(kept.representation, keys) * _bytes_of_number(kept.representation)
        kept_bytes += len(kept.data.drawn) * row
        sizes[kept.features or (kept.number, kept.data.name)] = kept.data.n * row
    for unit in (unit for block in plan.blocks for unit in block.units):
        model = unit.representation.model
        probability_bytes += _probability_bytes(unit)
        if not isinstance(model, FeatureSource):
            continue  # it has its predictions
        assumed |= widths.known(unit.representation, unit.features) is None
        width = widths.of(unit.representation, unit.features)
        for name, key in unit.features.items():
            size = plan.problem.data[name].n * width * _bytes_of_number(unit.representation)
            sizes[key or (unit.number, name)] = size
        heads += fits_of(unit)
    searched = [unit for block in plan.searches for unit in block.units]
    pairs = count_pairs(plan)
    tiles = plan_tiles(plan, parts) if tiles is None else tiles
    ended: Counter[State] = Counter()  # pairs
    for tile in tiles:
        ended[tile_state(tile, parts)] += tile.n_pairs
    return Estimate(
        heads=heads,
        searches=len(searched),
        candidates=sum(len(unit.candidates) for unit in searched),
        stand_ins=sum(stand_ins_left(plan, tiles, parts).values()),
        pairs=pairs,
        pairs_finished=ended["finished"],
        pairs_failed=ended["failed"],
        feature_bytes=sum(sizes.values()),
        extractions=len(sizes.keys() - widths.in_cache.keys() - store.shared_keys()),
        kept_bytes=kept_bytes,
        probability_bytes=probability_bytes,
        trial_bytes=(experiment.resources.memory or default_memory()) if heads else 0,
        widths_assumed=assumed,
    )


def process_bytes(plan: Plan) -> int:
    """Memory of the process of a trial, mapped features apart: one number for all of a plan.

    It is what was asked for, or else what the largest unit is likely to take; a process takes some
    before it begins.
    """
    experiment = plan.problem.experiment
    if experiment.resources.memory is not None:
        return BYTES_OF_PROCESS + experiment.resources.memory
    widths = Widths(experiment)
    likely = max((_unit_bytes(unit, widths) for unit in plan.units), default=0)
    return BYTES_OF_PROCESS + min(default_memory(), likely)


def _unit_bytes(unit: HeadUnit, widths: Widths) -> int:
    """Scaled features of the training split and what solvers hold beside them, roughly."""
    width, rows = widths.of(unit.representation, unit.features), unit.task.n_train
    outputs = fits_of(unit) * (len(unit.task.classes) or 1)
    numbers = rows * (width + outputs) + width**2
    return COPIES_OF_SOLVERS * np.dtype(np.float64).itemsize * numbers


def count_pairs(plan: Plan) -> int:
    """Wanted pairs over all tasks, heads, evaluated data sets and measures."""
    return _pairs_of_heads(plan) + _pairs_of_features(plan)


def _pairs_of_features(plan: Plan) -> int:
    """Wanted pairs over all data sets and measures of features."""
    wanted, total = plan.problem.wanted, 0
    for data in {unit.data.name for unit in plan.kept}:
        items = (unit.representation for unit in plan.kept if unit.data.name == data)
        total += wanted.count(wanted.positions(items))
    return total * len(feature_measures(plan.problem.experiment.measures))


def _pairs_of_heads(plan: Plan) -> int:
    experiment, problem = plan.problem.experiment, plan.problem
    wanted: dict[str, int] = {}  # the same for all tasks of a family
    total = 0
    for task in problem.tasks:
        line = task.spec.name
        if line not in wanted:
            items = (item for item in problem.representations if problem.has_task(item, task))
            wanted[line] = problem.wanted.count(problem.wanted.positions(items))
        measures = len(fitting(experiment.measures, task.spec.kind))
        heads = len(experiment.heads_for(task.spec))
        total += wanted[line] * heads * len(task.evaluation) * measures
    return total


def count_states(plan: Plan, tiles: Sequence[Tile], parts: Parts) -> dict[str, int]:
    """Units by state, and with them the tiles of pairs that are not there."""
    counts = {state: plan.count(state) for state in get_args(State)}
    for tile in tiles:
        state = tile_state(tile, parts)
        counts[state] += state != "finished"
    return counts


def rows_left(plan: Plan, tiles: Sequence[Tile], parts: Parts) -> list[dict[str, str | None]]:
    """The units that are left to do, and the tiles of those that are there; a row each."""
    rows: list[dict[str, str | None]] = []
    for unit, state in zip(plan.units, plan.states, strict=True):
        if state in LEFT:
            who = {"model": unit.representation.model_name, "layer": unit.representation.layer}
            rows.append({**who, "task": unit.task.name, "head": unit.head.name, "stage": "heads"})
    for kept, state in zip(plan.kept, plan.kept_states, strict=True):
        if state in LEFT:
            who = {"model": kept.representation.model_name, "layer": kept.representation.layer}
            rows.append({**who, "task": None, "head": None, "stage": "features"})
    for tile in tiles:
        if tile_state(tile, parts) in LEFT:
            what = {"task": tile.task, "head": tile.head, "stage": "pairs"}
            rows.append({"model": None, "layer": None, **what})
    return rows


def stand_ins_left(
    plan: Plan, tiles: Sequence[Tile], parts: Parts
) -> dict[tuple[int, str, str], int]:
    """Heads left to fit as stand-ins, by number of the representation, task and head."""
    ended: Counter[tuple[int, str, str]] = Counter()
    for tile in tiles:
        if isinstance(tile, StandInTile) and tile_state(tile, parts) != "missing":
            place = (tile.columns[0].number, str(tile.task), str(tile.head))
            ended[place] += int(tile.wanted.sum())
    groups: dict[tuple[str, str], list[HeadUnit]] = defaultdict(list)
    for unit, state in zip(plan.units, plan.states, strict=True):
        if unit.with_training and state != "failed":
            groups[unit.task.name, unit.head.name].append(unit)
    wanted = plan.problem.wanted
    left: dict[tuple[int, str, str], int] = {}
    for line, units in groups.items():
        evaluated = len(units[0].task.evaluation)
        partners = wanted.partners(wanted.positions(unit.representation for unit in units))
        for unit, others in zip(units, partners.tolist(), strict=True):
            left[unit.number, *line] = others + 1 - ended[unit.number, *line] // evaluated
    return left


def _bytes_of_number(representation: Representation) -> int:
    model = representation.model
    return np.dtype(model.storage if isinstance(model, FeatureSource) else np.float32).itemsize


def _probability_bytes(unit: HeadUnit) -> int:
    if not unit.with_probabilities:
        return 0
    rows = sum(int(unit.task.evaluation_rows(name).sum()) for name in unit.task.evaluation)
    return fits_of(unit) * rows * len(unit.task.classes) * np.dtype(np.float32).itemsize
