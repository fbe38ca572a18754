"""Tiles: the wanted pairs of all finished units, cut on the numbers of the representations.

A representation's number never changes, so a zoo that grows keeps its tiles. Tiles of the same
bucket of rows come one after the other: a worker has read their predictions already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from td_ray import versions
from td_ray.files import fingerprint
from td_ray.measures import fitting
from td_ray.plan import HeadUnit, Plan
from td_ray.results.parts import Parts


@dataclass(frozen=True)
class Member:
    """A row or column of a tile: a representation's number and its unit of heads."""

    number: int
    unit: str


@dataclass(frozen=True, eq=False)
class Tile:
    """Pairs between two ranges of representations, for one task, head, data set and measure.

    Attributes:
        key: fingerprint of all that decides its values.
        task: name of the task, of this ``kind`` and, for regression, ``distance``.
        head: name of the head.
        data: name of the data set that is predicted.
        measure: name of the measure.
        rows: those whose numbers are in one range.
        columns: those in another range, or the same.
        selected: (rows, columns) bool, which pairs are wanted; None for all.
    """

    key: str
    task: str
    kind: str
    distance: str
    head: str
    data: str
    measure: str
    rows: tuple[Member, ...]
    columns: tuple[Member, ...]
    selected: NDArray[np.bool_] | None

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """(rows, columns) the wanted pairs, each once: the row's number is the smaller."""
        a, b = (np.array([each.number for each in side]) for side in (self.rows, self.columns))
        each_once: NDArray[np.bool_] = a[:, None] < b[None, :]
        return each_once if self.selected is None else each_once & self.selected

    @property
    def n_pairs(self) -> int:
        """The number of wanted pairs."""
        if self.selected is None and self.rows[-1].number < self.columns[0].number:
            return len(self.rows) * len(self.columns)
        return int(self.wanted.sum())


def plan_tiles(plan: Plan, parts: Parts) -> list[Tile]:
    """Cut the wanted pairs of all finished units into tiles; those that are there included."""
    size = plan.problem.experiment.resources.tile
    tiles: list[Tile] = []
    for data, units in _comparable(plan, parts):
        buckets: dict[int, list[HeadUnit]] = defaultdict(list)
        for unit in sorted(units, key=lambda unit: unit.number):
            buckets[unit.number // size].append(unit)
        members = {number: _members(bucket) for number, bucket in buckets.items()}
        for low in sorted(buckets):
            for high in sorted(bucket for bucket in buckets if bucket >= low):
                sides = (members[low], members[high])
                selected = _selected(plan, buckets[low], buckets[high])
                tiles.extend(_tiles(plan, units[0], data, *sides, selected))
    return tiles


def _comparable(plan: Plan, parts: Parts) -> Iterator[tuple[str, list[HeadUnit]]]:
    """Finished units that share a task and a head, with each data set that they predict."""
    groups: dict[tuple[str, str, str], list[HeadUnit]] = defaultdict(list)
    for unit in plan.units:
        if unit.key is not None and parts.has_heads(unit.key, unit.runs):
            for data in unit.task.evaluation:
                groups[unit.task.name, data, unit.head.name].append(unit)
    return ((data, units) for (_, data, _), units in groups.items())


def _members(units: Sequence[HeadUnit]) -> tuple[Member, ...]:
    return tuple(Member(unit.number, str(unit.key)) for unit in units)


def _selected(
    plan: Plan, rows: Sequence[HeadUnit], columns: Sequence[HeadUnit]
) -> NDArray[np.bool_] | None:
    wanted = plan.problem.wanted
    if wanted.globs == "all":
        return None
    return np.array(
        [[wanted(a.representation, b.representation) for b in columns] for a in rows],
        dtype=np.bool_,
    )


def _tiles(
    plan: Plan,
    unit: HeadUnit,
    data: str,
    rows: tuple[Member, ...],
    columns: tuple[Member, ...],
    selected: NDArray[np.bool_] | None,
) -> Iterator[Tile]:
    """One tile for each measure, if a pair is wanted."""
    task, spec = unit.task.name, unit.task.spec
    for measure in (each.name for each in fitting(plan.problem.experiment.measures, spec.kind)):
        key = fingerprint(
            [
                versions.MEASURES,
                measure,
                spec.distance,
                [task, data, unit.head.name],
                plan.problem.experiment.seeds,
                [[(each.number, each.unit) for each in side] for side in (rows, columns)],
                None if selected is None else selected.astype(int).tolist(),
            ]
        )
        what = (task, spec.kind, spec.distance, unit.head.name, data, measure)
        tile = Tile(key, *what, rows, columns, selected)
        if tile.n_pairs:
            yield tile
