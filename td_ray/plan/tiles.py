"""Tiles: the wanted pairs of all finished units, cut on the numbers of the representations.

A representation's number never changes, so a zoo that grows keeps its tiles. Tiles of the same
bucket of rows come one after the other: a worker has read their predictions already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from td_ray import versions
from td_ray.files import fingerprint
from td_ray.measures import Measure, fits_stand_ins, fitting
from td_ray.measures.features import feature_measures
from td_ray.memory import default_memory
from td_ray.plan.units import FeatureUnit, HeadUnit, Plan, State
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.tasks import FEATURE_EXAMPLES, DataSet

LARGEST = 128
"""Models on a side. Larger tiles are compared no faster, and take longer to do again."""

LARGEST_OF_FEATURES = 32
"""The same where features are compared: what is made of a model's takes up to 32 MB."""

FEATURES = "features"
"""The kind of a tile that compares features, and not what heads make of them."""

COPIES = 4
"""Of predictions in memory: as they are stored, and bits or values in another order."""


@dataclass(frozen=True)
class Member:
    """A row or column of a tile: a representation's number and its unit."""

    number: int
    unit: str


Block = tuple[tuple[Member, ...], tuple[Member, ...], NDArray[np.bool_] | None]
"""Rows, columns, and which of their pairs are wanted; None for all."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Pairs between two ranges of representations, for one task, head, data set and measure.

    Attributes:
        key: fingerprint of all that decides its values.
        task: name of the task, of this ``kind`` and, for regression, ``distance``; None, and the
            kind ``FEATURES``, where features are compared.
        head: name of the head; None for features.
        data: name of the data set that is predicted.
        measure: name of the measure.
        rows: those whose numbers are in one range.
        columns: those in another range, or the same.
        selected: (rows, columns) bool, which pairs are wanted; None for all.
        size: numbers in a range.
    """

    key: str
    task: str | None
    kind: str
    distance: str
    head: str | None
    data: str
    measure: str
    rows: tuple[Member, ...]
    columns: tuple[Member, ...]
    selected: NDArray[np.bool_] | None
    size: int

    @property
    def buckets(self) -> tuple[int, int]:
        """Which range of numbers the rows are in, and the columns."""
        return self.rows[0].number // self.size, self.columns[0].number // self.size

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """(rows, columns) the wanted pairs, each once: the row's number is the smaller."""
        each_once = _each_once(self.rows, self.columns)
        return each_once if self.selected is None else each_once & self.selected

    @property
    def n_pairs(self) -> int:
        """The number of wanted pairs."""
        if self.selected is None and self.rows[-1].number < self.columns[0].number:
            return len(self.rows) * len(self.columns)
        return int(self.wanted.sum())


@dataclass(frozen=True, eq=False)
class StandInTile(Tile):
    """Pairs from several representations (rows) to the one that stands in for them (column).

    Both directions of a pair are wanted, in different tiles. With them comes, in one of the tiles
    of a stand-in, how well it stands in for itself.
    """

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """(rows, 1) the wanted pairs, and the stand-in itself."""
        (stand_in,) = self.columns
        itself = np.array([[each.number == stand_in.number] for each in self.rows])
        everything = np.ones_like(itself)
        return np.asarray(itself | (everything if self.selected is None else self.selected))

    @property
    def n_pairs(self) -> int:
        """The number of wanted pairs, each counted in one of its two directions."""
        numbers = np.array([each.number for each in self.rows])
        return int((self.wanted[:, 0] & (numbers < self.columns[0].number)).sum())


def tile_state(tile: Tile, parts: Parts) -> State:
    """Whether a tile is there, or its failure is on record, or it is left to do."""
    if parts.has_pairs(tile.key):
        return "finished"
    return "missing" if parts.failure(tile.key) is None else "failed"


def plan_tiles(plan: Plan, parts: Parts) -> list[Tile]:
    """Cut the wanted pairs of all finished units into tiles; those that are there included."""
    tiles: list[Tile] = []
    for data, units in _comparable(plan, parts):
        chosen = units[0].task.examples(data, plan.problem.experiment.examples)
        examples = None if chosen is None else len(chosen)
        size = tile_size(plan.problem.experiment, units[0], data)
        for block in _blocks(plan, units, size):
            tiles.extend(_tiles(plan, units[0], data, block, examples, size))
        tiles.extend(_stand_in_tiles(plan, units, data, examples, size))
    for name, kept in _kept(plan, parts).items():
        tiles.extend(_feature_tiles(plan, name, kept))
    return tiles


def tile_size(experiment: Experiment, unit: HeadUnit, data: str) -> int:
    """How many models a side of a tile has: what was asked for, or what fits into memory.

    It depends on the task alone, not on the zoo, so that a zoo that grows keeps its tiles.
    """
    resources, task = experiment.resources, unit.task
    if resources.tile is not None:
        return resources.tile
    n_classes = len(task.classes)
    of_one = np.min_scalar_type(n_classes - 1).itemsize if task.is_classification else 8
    runs = 1 + 2 * len(experiment.seeds)
    of_side = COPIES * int(task.evaluation_rows(data).sum()) * of_one * runs
    size = LARGEST
    while size > 1 and 2 * size * of_side > (resources.memory or default_memory()):
        size //= 2
    return size


def _comparable(plan: Plan, parts: Parts) -> Iterator[tuple[str, list[HeadUnit]]]:
    """Finished units that share a task and a head, with each data set that they predict."""
    groups: dict[tuple[str, str, str], list[HeadUnit]] = defaultdict(list)
    for unit in plan.units:
        if unit.key is not None and parts.has_heads(unit.key, unit.runs):
            for data in unit.task.evaluation:
                groups[unit.task.name, data, unit.head.name].append(unit)
    return ((data, units) for (_, data, _), units in groups.items())


def _kept(plan: Plan, parts: Parts) -> dict[str, list[FeatureUnit]]:
    """Finished units of features by data set."""
    found: dict[str, list[FeatureUnit]] = defaultdict(list)
    for unit in plan.kept:
        if unit.key is not None and parts.has_features(unit.key):
            found[unit.data.name].append(unit)
    return found


def _feature_tiles(plan: Plan, data: str, units: Sequence[FeatureUnit]) -> Iterator[Tile]:
    experiment = plan.problem.experiment
    size = experiment.resources.tile or LARGEST_OF_FEATURES
    examples = feature_examples(units[0].data, experiment.examples)
    measures = feature_measures(experiment.measures)
    for rows, columns, selected in _blocks(plan, units, size):
        members = _identity(rows, columns, selected)
        for name, measure in measures.items():
            decides = [measure.name, measure.options, data, examples, members]
            key = fingerprint([versions.MEASURES, FEATURES, decides])
            what = (None, FEATURES, "", None, data, name)
            tile = Tile(key, *what, rows, columns, selected, size)
            if tile.n_pairs:
                yield tile


def feature_examples(data: DataSet, wanted: int | None) -> int:
    """On how many samples of a data set features are compared, where so many are wanted."""
    return min(len(data.drawn), wanted or FEATURE_EXAMPLES)


def _identity(
    rows: Sequence[Member], columns: Sequence[Member], selected: NDArray[np.bool_] | None
) -> list[object]:
    """What tells the pairs of one tile from those of another."""
    return [
        [[(each.number, each.unit) for each in side] for side in (rows, columns)],
        None if selected is None else np.packbits(selected).tobytes().hex(),
    ]


def _stand_in_tiles(
    plan: Plan, units: Sequence[HeadUnit], data: str, examples: int | None, size: int
) -> Iterator[StandInTile]:
    """For each representation, ranges of those that it is to stand in for."""
    spec, wanted = units[0].task.spec, plan.problem.wanted
    ordered = sorted(units, key=lambda unit: unit.number)
    positions = wanted.positions(unit.representation for unit in ordered)
    buckets = [list(each) for _, each in groupby(ordered, key=lambda unit: unit.number // size)]
    ends = np.cumsum([0, *map(len, buckets)])
    members = [_members(bucket) for bucket in buckets]
    for measure in _measures(plan, spec.kind, of_stand_ins=True):
        what = (units[0].task.name, spec.kind, spec.distance, units[0].head.name, data)
        for place, unit in enumerate(ordered):
            column = _members([unit])
            chosen = wanted.block(positions, positions[place : place + 1])
            for start, end, rows in zip(ends, ends[1:], members, strict=False):
                selected = None if wanted.are_all else chosen[start:end]
                decides = [versions.MEASURES, measure.name, *what, examples]
                key = fingerprint([*decides, *_identity(rows, column, selected)])
                tile = StandInTile(key, *what, measure.name, rows, column, selected, size)
                if tile.wanted.any():
                    yield tile


def _measures(plan: Plan, kind: str, *, of_stand_ins: bool) -> list[Measure]:
    """Measures of predictions of a kind of task: of stand-ins, or of the heads as they are."""
    measures = fitting(plan.problem.experiment.measures, kind)
    return [each for each in measures if fits_stand_ins(each.name) == of_stand_ins]


def _members(units: Sequence[HeadUnit | FeatureUnit]) -> tuple[Member, ...]:
    return tuple(Member(unit.number, str(unit.key)) for unit in units)


def _blocks(
    plan: Plan, units: Sequence[HeadUnit] | Sequence[FeatureUnit], size: int
) -> Iterator[Block]:
    """Two ranges of numbers at a time, with the pairs that are wanted of theirs."""
    wanted = plan.problem.wanted
    ordered: list[HeadUnit | FeatureUnit] = sorted(units, key=lambda unit: unit.number)
    buckets = [list(each) for _, each in groupby(ordered, key=lambda unit: unit.number // size)]
    members = [_members(bucket) for bucket in buckets]
    places = [wanted.positions(unit.representation for unit in bucket) for bucket in buckets]
    for low, rows in enumerate(members):
        if wanted.are_all:
            yield from ((rows, columns, None) for columns in members[low:])
            continue
        strip = wanted.block(places[low], np.concatenate(places[low:]))
        ends = np.cumsum([len(place) for place in places[low:]])[:-1]
        for columns, block in zip(members[low:], np.split(strip, ends, axis=1), strict=True):
            yield from _wanted_of(rows, columns, block)


def _wanted_of(
    rows: tuple[Member, ...], columns: tuple[Member, ...], block: NDArray[np.bool_]
) -> Iterator[Block]:
    """The block without the rows and columns of which no pair is wanted; nothing if none is."""
    each_once = _each_once(rows, columns)
    selected = block & each_once
    if (selected == each_once).all():
        if selected.any():
            yield rows, columns, None
        return
    a, b = (np.flatnonzero(selected.any(axis=axis)) for axis in (1, 0))
    if len(a):
        yield tuple(rows[i] for i in a), tuple(columns[j] for j in b), selected[np.ix_(a, b)]


def _each_once(rows: Sequence[Member], columns: Sequence[Member]) -> NDArray[np.bool_]:
    """(rows, columns) bool, where the row's number is the smaller."""
    a, b = (np.array([each.number for each in side]) for side in (rows, columns))
    return np.asarray(a[:, None] < b[None, :])


def _tiles(
    plan: Plan,
    unit: HeadUnit,
    data: str,
    block: Block,
    examples: int | None,
    size: int,
) -> Iterator[Tile]:
    """One tile for each measure, if a pair is wanted."""
    rows, columns, selected = block
    task, spec = unit.task.name, unit.task.spec
    for measure in (each.name for each in _measures(plan, spec.kind, of_stand_ins=False)):
        key = fingerprint(
            [
                versions.MEASURES,
                measure,
                spec.distance,
                [task, data, unit.head.name],
                plan.problem.experiment.seeds,
                *_identity(rows, columns, selected),
                # which ones follows from their number: units have the ids in their keys
                *([] if examples is None else [examples]),
            ]
        )
        what = (task, spec.kind, spec.distance, unit.head.name, data, measure)
        tile = Tile(key, *what, rows, columns, selected, size)
        if tile.n_pairs:
            yield tile
