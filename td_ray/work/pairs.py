"""Pairs from predictions: read the heads of a tile, compare them, write the tile's part.

    value   = d( h(F), h'(F') )                       heads on the full training split
    floor   = mean_r d( h_{A_r}(F), h_{B_r}(F) )      heads on seed r's two halves
    tdx     = mean_r [ d( h_{A_r}(F), h'_{B_r}(F') ) + d( h_{B_r}(F), h'_{A_r}(F') ) ] / 2
    excess  = tdx - (floor + floor') / 2

`se` is the standard error of the value over evaluation examples, from blocks of them. A measure
that is not symmetric has a row for each direction. It needs no torch, so that a worker that only
compares starts fast.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from td_ray import inference
from td_ray.errors import MachineError, WorkError
from td_ray.measures import Examples, Form, Measure, find_measure, one_block
from td_ray.measures.example_blocks import example_blocks
from td_ray.plan import Plan
from td_ray.plan.tiles import FEATURES, Member, Tile, feature_examples
from td_ray.results.schemas import pair_part
from td_ray.tasks import Task
from td_ray.tasks.splits import keys
from td_ray.work.feature_pairs import compare_features, slices
from td_ray.work.predictions import Predictions, Reader
from td_ray.work.time_limit import NO_LIMIT, TimeLimit

__all__ = ["Reader", "compare", "examples_of", "run_tile", "task_examples"]

ON_HALVES = "heads fitted on half the training split: "
PROBABILITY_BYTES = 2**28
"""Of probabilities that are held at once of one side of a tile; of one head, whatever they take."""

Floats = NDArray[np.float64]
TaskData = tuple[str | None, str]
"""Names of a task and a data set that it is evaluated on; of a data set alone for features."""


def examples_of(plan: Plan, tiles: Sequence[Tile]) -> Iterator[tuple[TaskData, Examples]]:
    """By task and data set, the examples that tiles compare: their blocks and true classes.

    The blocks of a task depend on its evaluation samples' ids, and on their groups or classes.
    """
    tasks, size = {task.name: task for task in plan.problem.tasks}, plan.problem.experiment.examples
    keyed: dict[tuple[str, bool], NDArray[np.uint64]] = {}
    for name, data in dict.fromkeys((tile.task, tile.data) for tile in tiles):
        if name is None:
            n = feature_examples(plan.problem.data[data], size)
            yield (name, data), Examples(one_block(n))
        else:
            yield (name, data), task_examples(tasks[name], data, size, keyed)


def task_examples(
    task: Task, name: str, size: int | None, keyed: dict[tuple[str, bool], NDArray[np.uint64]]
) -> Examples:
    """The samples of a data set on which a task's pairs are compared: all, or so many of them.

    Keys of all samples and groups of a data set are made once, for all tasks.
    """
    data, rows = task.evaluation[name], np.flatnonzero(task.evaluation_rows(name))
    for is_group, words in enumerate((data.ids, data.groups)):
        if words is not None and (name, bool(is_group)) not in keyed:
            keyed[name, bool(is_group)] = keys(words, "blocks")
    chosen = task.examples(name, size)
    rows = rows if chosen is None else rows[chosen]
    groups = None if data.groups is None else keyed[name, True][rows]
    truth = None
    if task.is_classification:
        smallest = np.min_scalar_type(len(task.classes) - 1)
        truth = task.target.values(data)[rows].astype(smallest)
    blocks = example_blocks(keyed[name, False][rows], truth, groups=groups)
    return Examples(blocks, truth, len(task.classes), task.evaluation_digest(name), chosen)


def run_tile(tile: Tile, examples: Examples, reader: Reader, limit: TimeLimit = NO_LIMIT) -> None:
    """Compare all pairs of a tile and write its part, or its failure."""
    started, parts = time.perf_counter(), reader.parts

    def late(error: WorkError) -> None:
        what = f"measure '{tile.measure}' on data set '{tile.data}'"
        parts.write_failure(tile.key, "pairs", WorkError(f"{what}: {error}"))

    try:
        with limit.of_unit(late):
            if tile.kind == FEATURES:
                found = compare_features(tile, examples.blocks.examples, reader.prepared)
            else:
                found = compare(tile, examples, reader)
        parts.write_pairs(tile.key, found)
        parts.clear_failure(tile.key)
    except (OSError, MachineError):
        raise  # such as a full disk: the tile stays missing
    except Exception as error:  # one tile's trouble costs that tile alone
        parts.write_failure(tile.key, "pairs", error)
    parts.write_timing(tile.key, "pairs", time.perf_counter() - started, platform.node())


@dataclass(frozen=True, eq=False)
class _Compared:
    """What is found in one direction: (A, B) matrices, and the floors of both sides."""

    value: Floats
    se: Floats
    tdx: Floats
    floor_a: Floats
    floor_b: Floats
    has_seeds: NDArray[np.bool_]

    @classmethod
    def empty(cls, height: int, width: int) -> _Compared:
        value, se, tdx = np.full((3, height, width), np.nan)
        has_seeds = np.zeros((height, width), dtype=np.bool_)
        return cls(value, se, tdx, np.full(height, np.nan), np.full(width, np.nan), has_seeds)

    def fill(self, rows: slice, columns: slice, other: _Compared) -> None:
        """Put what was found of some rows and columns in its place."""
        for name in ("value", "se", "tdx", "has_seeds"):
            getattr(self, name)[rows, columns] = getattr(other, name)
        self.floor_a[rows], self.floor_b[columns] = other.floor_a, other.floor_b


def compare(tile: Tile, examples: Examples, reader: Reader) -> pa.Table:
    """The wanted pairs of a tile as rows of its part; a measure that is not symmetric has two each.

    Raises:
        WorkError: predictions of other samples, or without the probabilities that are needed.
    """
    measure = find_measure(tile.measure)
    form, wanted = measure.form(tile.kind, tile.distance), tile.wanted
    shape = wanted.shape
    there, back = _Compared.empty(*shape), _Compared.empty(*shape[::-1])
    size = _members_at_once(tile, examples, measure, reader)
    for rows in slices(shape[0], size):
        for columns in slices(shape[1], size):
            if not wanted[rows, columns].any():
                continue
            sides = ((tile.rows, rows), (tile.columns, columns))
            a, b = (
                reader.read(side[some], tile.data, examples, needs=measure.needs, who=measure.name)
                for side, some in sides
            )
            there.fill(rows, columns, _compared(a, b, measure, form, tile.distance))
            if not measure.is_symmetric:
                back.fill(columns, rows, _compared(b, a, measure, form, tile.distance))
    n, n_seeds = examples.blocks.examples, len(reader.seeds)
    tables = [_rows(tile.rows, tile.columns, wanted, there, form, n, n_seeds)]
    if not measure.is_symmetric:
        tables.append(_rows(tile.columns, tile.rows, wanted.T, back, form, n, n_seeds))
    return pa.concat_tables(tables)


def _members_at_once(tile: Tile, examples: Examples, measure: Measure, reader: Reader) -> int:
    """How many members of each side are compared at once: all, or as many as memory allows."""
    if "probabilities" not in measure.needs:
        return max(len(tile.rows), len(tile.columns))
    runs = 1 + 2 * len(reader.seeds)
    of_one = 4 * examples.blocks.examples * examples.n_classes * runs
    return max(1, PROBABILITY_BYTES // of_one)


def _compared(
    a: Predictions, b: Predictions, measure: Measure, form: Form, distance: str
) -> _Compared:
    """Compare two sides of a tile, from the first to the second."""
    value, se = form.with_errors(a.full, b.full)
    both = np.ix_(a.seeded, b.seeded)
    tdx = np.full(value.shape, np.nan)
    has_seeds = np.zeros(value.shape, dtype=np.bool_)
    has_seeds[both] = True
    if a.halves_a and b.halves_a:
        halves = (a.halves_a, a.halves_b, b.halves_a, b.halves_b)
        tdx[both] = inference.cross_discrepancy(*halves, form.between)
    floor_a, floor_b = (_floors(side, measure, form, distance) for side in (a, b))
    return _Compared(value, se, tdx, floor_a, floor_b, has_seeds)


def _floors(side: Predictions, measure: Measure, form: Form, distance: str) -> Floats:
    """(M,) noise floors; NaN where there are no seeds."""
    key = (measure.name, distance)
    if key not in side.floors:
        floors = np.full(len(side.seeded), np.nan)
        if side.halves_a:
            floors[side.seeded] = inference.noise_floor(
                side.halves_a, side.halves_b, form.between, is_symmetric=measure.is_symmetric
            )
        side.floors[key] = floors
    return side.floors[key]


def _rows(
    rows: Sequence[Member],
    columns: Sequence[Member],
    wanted: NDArray[np.bool_],
    found: _Compared,
    form: Form,
    n_examples: int,
    n_seeds: int,
) -> pa.Table:
    """The rows of the wanted pairs in one direction."""
    a, b = np.nonzero(wanted)
    excess = inference.excess(found.tdx, found.floor_a, found.floor_b)
    has_seeds = found.has_seeds[a, b]
    known = {
        "a": np.array([member.number for member in rows])[a],
        "b": np.array([member.number for member in columns])[b],
        "value": found.value[a, b],
        "floor_a": found.floor_a[a],
        "floor_b": found.floor_b[b],
        "tdx": found.tdx[a, b],
        "excess": excess[a, b],
        "n_examples": np.full(len(a), n_examples),
        "n_seeds": np.where(has_seeds, n_seeds, 0).astype(np.int32),
        "se": found.se[a, b],
        "reason": _reasons(found.value[a, b], found.tdx[a, b], has_seeds, form.undefined),
    }
    return pair_part(known)


def _reasons(
    value: Floats, tdx: Floats, seeded: NDArray[np.bool_], undefined: str
) -> pa.Array | list[str | None]:
    """Why a value, or what comes of the halves, is null; stored predictions have no halves."""
    headline, half = np.isnan(value), np.isnan(tdx) & seeded
    if not (headline.any() or half.any()):
        return pa.nulls(len(value), pa.string())
    return [
        undefined if one else ON_HALVES + undefined if other else None
        for one, other in zip(headline, half, strict=True)
    ]
