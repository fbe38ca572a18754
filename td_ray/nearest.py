"""The models that are nearest to one, without the whole matrix.

One representation is compared with all others whose heads are there, as a strip of the matrix, in
this process and straight from the parts. It needs neither Ray nor a run that has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pandas as pd
import pyarrow as pa

from td_ray.errors import InputError
from td_ray.measures import DIFFERENT, Measure, find_measure, fits_stand_ins
from td_ray.plan import HeadUnit, plan_as_known
from td_ray.plan.resolve import Problem, resolve
from td_ray.plan.tiles import Member, Tile, tile_size
from td_ray.registry import closest
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.tasks import Task
from td_ray.work.pairs import Reader, compare, task_examples
from td_ray.zoo import Representation

Finished = dict[str, dict[str, HeadUnit]]
"""Finished units by task and representation."""

NUMBERS = ["value", "floor", "tdx", "excess", "se"]


@dataclass(frozen=True)
class Row:
    """A row of the matrix of one task: who is compared with whom, and how.

    Attributes:
        one: whose row it is.
        others: the finished units beside it, in the order of their numbers.
        measure: its name.
        data: the data set that is predicted.
    """

    one: HeadUnit
    others: tuple[HeadUnit, ...]
    measure: str
    data: str


def nearest(
    experiment: Experiment,
    model: str,
    task: str,
    measure: str = "td",
    *,
    head: str | None = None,
    data: str | None = None,
    k: int = 10,
) -> pd.DataFrame:
    """The k models that are nearest to one.

    Args:
        experiment: whose heads are fitted, all or some of them.
        model: a model, or one at a layer (``resnet18@layer3``) where it has several.
        task: the task's name, or a family's for the mean over its tasks.
        measure: a measure of predictions, among the experiment's or not. Of one that is not
            symmetric, values are from the model to the others.
        head: needed where the task has several heads.
        data: the data set that is predicted; needed where there are several.
        k: how many at most; those without a value are left out.

    Returns:
        A frame with ``model``, ``layer``, ``value``, ``floor``, ``tdx``, ``excess``, ``se`` and
        ``n_examples``, the nearest first. Its ``attrs`` hold ``floor``, that of the model itself,
        and how many others could not be compared: ``without_head`` and ``without_value``.

    Raises:
        InputError: no such name, more than one thing to choose from, or no head for the model yet.
    """
    if k < 1:
        raise InputError(f"'k' is at least 1, not {k}")
    is_distance = _measure(measure).direction == DIFFERENT
    problem = resolve(experiment)
    tasks = _tasks(problem, task)
    heads = [each.name for each in experiment.heads_for(tasks[0].spec)]
    head = _choice(task, "head", head, heads)
    data = _choice(task, "data set", data, list(tasks[0].evaluation))
    one = _representation(problem, model)
    parts = Parts(experiment.output_folder)
    units, finished = _units(replace(problem, tasks=tasks), head)
    _require(one, task, units, finished, parts)
    names = set.intersection(*(set(each) for each in finished.values())) - {one.name}
    rows = [_row(finished[each.name], one.name, names, measure, data) for each in tasks]
    reader = Reader(parts, experiment.seeds)
    compared = _mean([_compare(row, reader, experiment) for row in rows])
    valued = compared.dropna(subset="value")
    ordered = valued.sort_values("value", ascending=is_distance, kind="stable")
    found = ordered.head(k).reset_index(drop=True)
    found.attrs = {
        "floor": None if np.isnan(compared.attrs["floor"]) else compared.attrs["floor"],
        "without_head": len({unit.representation.name for unit in units}) - 1 - len(names),
        "without_value": len(compared) - len(valued),
    }
    return found


def _measure(name: str) -> Measure:
    """The measure of predictions of that name, if it fits no heads of its own."""
    if fits_stand_ins(name):
        raise InputError(
            f"measure '{name}' fits a head for each pair, which 'td-ray run' does; read its row "
            "from the results (results.row in Python)"
        )
    return find_measure(name)


def _tasks(problem: Problem, name: str) -> tuple[Task, ...]:
    """The task of a name, or all tasks of a family."""
    found = tuple(each for each in problem.tasks if name in (each.name, each.family))
    if not found:
        names = {spec.name for spec in problem.experiment.tasks}
        raise InputError(f"no task is called '{name}': {closest(name, names)}")
    return found


def _choice(task: str, what: str, name: str | None, names: Sequence[str]) -> str:
    if name is None and len(names) > 1:
        raise InputError(f"task '{task}' has several {what}s: name one of {', '.join(names)}")
    if name is not None and name not in names:
        raise InputError(f"task '{task}' has no {what} '{name}': {closest(name, names)}")
    return name or names[0]


def _representation(problem: Problem, name: str) -> Representation:
    known = problem.representations
    found = [item for item in known if name in (item.model_name, item.name)]
    if not found:
        names = {item.model_name for item in known}
        raise InputError(f"no model that is compared is called '{name}': {closest(name, names)}")
    if len(found) > 1:
        layers = ", ".join(item.name for item in found)
        raise InputError(f"model '{name}' has {len(found)} layers: name one of {layers}")
    return found[0]


def _units(problem: Problem, head: str) -> tuple[list[HeadUnit], Finished]:
    """All units of a head, and the finished ones."""
    plan = plan_as_known(problem)
    units: list[HeadUnit] = []
    finished: Finished = {task.name: {} for task in problem.tasks}
    for unit, state in zip(plan.units, plan.states, strict=True):
        if unit.head.name == head:
            units.append(unit)
            if state == "finished":
                finished[unit.task.name][unit.representation.name] = unit
    return units, finished


def _require(
    one: Representation, task: str, units: Sequence[HeadUnit], finished: Finished, parts: Parts
) -> None:
    """Refuse a model that cannot be compared."""
    own = [unit for unit in units if unit.representation.name == one.name]
    if not own:
        raise InputError(f"model '{one.model_name}' takes no part in task '{task}'")
    for unit in own:
        if one.name not in finished[unit.task.name]:
            failure = parts.failure(str(unit.key))
            why = f"it failed: {failure['error']}" if failure else "'td-ray run' fits it"
            raise InputError(
                f"model '{one.model_name}' has no head for task '{unit.task.name}' yet; {why}"
            )


def _row(
    finished: Mapping[str, HeadUnit], one: str, names: set[str], measure: str, data: str
) -> Row:
    others = sorted((finished[name] for name in names), key=lambda unit: unit.number)
    return Row(finished[one], tuple(others), measure, data)


def _compare(row: Row, reader: Reader, experiment: Experiment) -> pd.DataFrame:
    """A line for each other one, in their order; its ``attrs`` hold the ``floor`` of the one."""
    examples = task_examples(row.one.task, row.data, experiment.examples, {})
    tables = [compare(tile, examples, reader) for tile in _tiles(row, experiment)]
    if not tables:
        raise InputError(f"no other model has a head for task '{row.one.task.name}' yet")
    pairs: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    if not find_measure(row.measure).is_symmetric:
        pairs = pairs[pairs["a"] == row.one.number].reset_index(drop=True)
    items = [other.representation for other in row.others]
    is_first = pairs["a"] == row.one.number
    lines = pairs.assign(
        model=[item.model_name for item in items],
        layer=[item.layer for item in items],
        floor=pairs["floor_b"].where(is_first, pairs["floor_a"]),
    ).astype(dict.fromkeys(NUMBERS, float))
    lines = lines[["model", "layer", *NUMBERS, "n_examples"]]
    own = pairs["floor_a"].where(is_first, pairs["floor_b"]).astype(float)
    lines.attrs["floor"] = float(own.iloc[0])
    return lines


def _tiles(row: Row, experiment: Experiment) -> Iterator[Tile]:
    """The row as tiles: those whose numbers are smaller stand in a column above it."""
    task, one = row.one.task, (Member(row.one.number, str(row.one.key)),)
    what = (task.name, task.spec.kind, task.spec.distance, row.one.head.name, row.data, row.measure)
    size = tile_size(experiment, row.one, row.data)
    for is_above, side in groupby(row.others, key=lambda unit: unit.number < row.one.number):
        members = [Member(unit.number, str(unit.key)) for unit in side]
        for start in range(0, len(members), size):
            some = tuple(members[start : start + size])
            rows, columns = (some, one) if is_above else (one, some)
            yield Tile("", *what, rows, columns, None, size)


def _mean(tasks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean over tasks; NaN where one of them has no value."""
    first = tasks[0]
    if len(tasks) == 1:
        return first
    means = {name: np.mean([lines[name] for lines in tasks], axis=0) for name in NUMBERS}
    fewest = np.min([lines["n_examples"] for lines in tasks], axis=0)
    # errors of tasks on the same samples are not independent
    mean = first.assign(**{**means, "se": np.nan}, n_examples=fewest)
    mean.attrs["floor"] = float(np.mean([lines.attrs["floor"] for lines in tasks]))
    return mean
