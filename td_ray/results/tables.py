"""Read the tables of a result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet

from td_ray.errors import InputError
from td_ray.files import reading
from td_ray.measures import fits_stand_ins
from td_ray.registry import closest
from td_ray.results.failures import grouped_failures
from td_ray.results.names import names_of
from td_ray.results.pairs_table import VALUES, Comparison, Gathered, PairsTable, gathered_mean
from td_ray.results.schemas import TABLES
from td_ray.results.td_matrix import Scale, TDMatrix, shares_of
from td_ray.storage import Folder, open_folder


def open_results(path: str | os.PathLike[str] | Folder) -> Results:
    """Open the results in an output folder.

    Args:
        path: of the folder, or its URL in an object store.

    Raises:
        InputError: there are none yet.
    """
    output = path if isinstance(path, Folder) else open_folder(path)
    if output.stamp(_file("comparisons")) is None:
        raise InputError(f"no results in {output}; 'td-ray run' writes them there")
    return Results(output)


def _file(table: str) -> str:
    return f"results/{table}/{table}.parquet"


class Results:
    """The tables of one output folder, read when asked for."""

    def __init__(self, output: Folder) -> None:
        self.output = output
        self._read: dict[str, pd.DataFrame] = {}
        self._pairs = PairsTable(output)

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables as it is on disk.

        Raises:
            InputError: no such table.
        """
        if name not in TABLES:
            raise InputError(f"no table is called '{name}': {closest(name, TABLES)}")
        if name not in self._read:
            path, filesystem = self.output.path(_file(name)), self.output.filesystem
            with reading(self.output.shown(_file(name)), "results"):
                self._read[name] = parquet.read_table(
                    path, filesystem=filesystem, partitioning=None
                ).to_pandas()
        return self._read[name].copy()

    def models(self) -> pd.DataFrame:
        """Representations in order of arrival, their metadata as columns.

        Metadata that is called like one of the table's own columns becomes ``metadata.number``.
        """
        table = self.table("models")
        metadata = [json.loads(text) for text in table.pop("metadata")]
        # nullable types, so that a whole number stays one where another model has none
        extra = pd.DataFrame(metadata, index=table.index).convert_dtypes()
        extra = extra.rename(columns={name: f"metadata.{name}" for name in table})
        return pd.concat([table, extra], axis=1).sort_values("number", ignore_index=True)

    def models_on(self, task: str) -> pd.DataFrame:
        """Those of ``models`` that take part in a task, or in a family of tasks."""
        models, tasks = self.models(), self.tasks().set_index("task")["family"].dropna()
        line = tasks.get(task, task)
        return models[[line in taken for taken in models["tasks"]]].reset_index(drop=True)

    def tasks(self) -> pd.DataFrame:
        """Tasks with their kinds, classes and sizes."""
        return self.table("tasks")

    def heads(self) -> pd.DataFrame:
        """One row per head and data set it predicted; seed and half are null for the headline."""
        return self.table("heads")

    def searches(self) -> pd.DataFrame:
        """One row per candidate of every search, with the one that was chosen."""
        return self.table("searches")

    def predictions(self) -> pd.DataFrame:
        """Stored predictions, one row per head and data set."""
        return self.table("predictions")

    def pairs(self) -> pd.DataFrame:
        """One row per pair of representations, task, data set, head and measure.

        All of them, in memory; ``row`` and ``matrix`` read what they need.
        """
        return self.table("pairs")

    def comparisons(self) -> pd.DataFrame:
        """One row per task, data set, head and measure, with the range and direction of values."""
        return self.table("comparisons")

    def failures(self) -> pd.DataFrame:
        """Units that failed, with the error of each."""
        return self.table("failures")

    def grouped_failures(self) -> list[dict[str, Any]]:
        """The same as rows, what failed alike on the tasks of a family in one of them."""
        families = self.tasks().set_index("task")["family"].dropna().to_dict()
        return grouped_failures(self.failures().to_dict("records"), families)

    def matrix(
        self,
        task: str | None = None,
        measure: str = "td",
        *,
        head: str | None = None,
        data: str | None = None,
        value: str = "value",
        weights: Mapping[str, float] | None = None,
    ) -> TDMatrix:
        """The matrix of one task, of those representations that take part.

        Args:
            task: the task's name, or a family's for the mean over its tasks; none for measures of
                features, and where there is only one.
            measure: the measure's name.
            head: needed where the task has several heads.
            data: the data set that is predicted; needed where there are several.
            value: ``value``, or the half-size ``tdx`` or ``excess``.
            weights: of the tasks of a family, by their names; equal by default.

        Raises:
            InputError: no such task, head or data set, or more than one to choose from.
        """
        if value not in VALUES:
            raise InputError(f"a matrix shows one of {', '.join(VALUES)}, not '{value}'")
        members = self.members(task, measure, head, data)
        models = self.models_of(members)
        shares = _shares(members, weights)
        found = self.gather(members, models, (value,), shares)
        return self.to_matrix(members[0], models, found, value)

    def to_matrix(
        self, comparison: Comparison, models: pd.DataFrame, found: Gathered, value: str
    ) -> TDMatrix:
        """Name what was gathered, and fill the diagonal."""
        known = self._known(comparison)
        scale = Scale(
            comparison.measure,
            value,
            known["low"],
            known["high"],
            known["is_similarity"],
            known["is_squared"],
            known["is_symmetric"],
        )
        values = found.values[value].copy()
        diagonal: Any = 0.0 if value == "excess" else known["itself"]
        if value == "tdx" or fits_stand_ins(comparison.measure):
            diagonal = found.floors
        np.fill_diagonal(values, diagonal)
        return TDMatrix(values, models, found.floors, scale)

    def gather(
        self,
        members: Sequence[Comparison],
        models: pd.DataFrame,
        columns: tuple[str, ...] = VALUES,
        shares: Sequence[float] | None = None,
    ) -> Gathered:
        """Read the pairs of a task, or their means over the tasks of a family."""
        each = self.gather_each(members, models, columns)
        if len(members) == 1:
            return next(each)[1]
        share = dict(zip(members, shares_of(shares, len(members)).tolist(), strict=True))
        return gathered_mean((share[member], found) for member, found in each)

    def gather_each(
        self,
        members: Sequence[Comparison],
        models: pd.DataFrame,
        columns: tuple[str, ...] = VALUES,
    ) -> Iterator[tuple[Comparison, Gathered]]:
        """Read the pairs of one task after the other."""
        numbers = [int(number) for number in models["number"]]
        is_symmetric = bool(self._known(members[0])["is_symmetric"])
        return self._pairs.gather(members, numbers, columns, is_symmetric=is_symmetric)

    def floors(
        self,
        task: str | None = None,
        measure: str = "td",
        *,
        head: str | None = None,
        data: str | None = None,
    ) -> pd.Series[float]:
        """The noise floor of each representation, at half the training set; NaN without seeds."""
        matrix = self.matrix(task, measure, head=head, data=data)
        return pd.Series(matrix.floors, index=matrix.names, name="floor")

    def row(
        self,
        model: str,
        task: str | None = None,
        measure: str = "td",
        *,
        head: str | None = None,
        data: str | None = None,
    ) -> pd.DataFrame:
        """The pairs of one representation; reads its part of the table alone.

        Args:
            model: its name as matrices show it, or ``model@layer``.
            task: not a family.

        Raises:
            InputError: as for ``matrix``, or no such representation.
        """
        members = self.members(task, measure, head, data)
        if len(members) > 1:
            raise InputError(f"'{task}' is a family of {len(members)} tasks: name one of them")
        models = self.models()
        whole = models["model"] + "@" + models["layer"]
        names = dict(zip([*whole, *names_of(models)], [*models["number"]] * 2, strict=True))
        if model not in names:
            raise InputError(f"no representation is called '{model}': {closest(model, names)}")
        return self._pairs.frame(members[0]._asdict(), int(names[model]))

    def select(
        self,
        task: str | None = None,
        measure: str = "td",
        head: str | None = None,
        data: str | None = None,
    ) -> pd.DataFrame:
        """The pairs of one task, measure, head and data set; of a family, those of its tasks.

        Raises:
            InputError: as for ``matrix``.
        """
        members = self.members(task, measure, head, data)
        return pd.concat([self._pairs.frame(member._asdict()) for member in members])

    def members(
        self,
        task: str | None = None,
        measure: str = "td",
        head: str | None = None,
        data: str | None = None,
    ) -> list[Comparison]:
        """The comparison that goes by these names, or those of the tasks of a family.

        Raises:
            InputError: nothing, or more than one thing, goes by what was given.
        """
        known = self.comparisons()
        found = known[known["measure"] == measure]
        if found.empty and len(known):
            hint = closest(measure, known["measure"].unique())
            raise InputError(f"no pairs have measure '{measure}': {hint}")
        what = f"measure '{measure}'"
        if task is not None or found["task"].notna().any():
            line = self._line(task, found)
            found, what = found[found["task"].isin(self._tasks_of(line))], f"task '{line}'"
        elif task is not None:
            raise InputError(f"{what} compares features, which have no task: leave 'task' out")
        for column, name in {"head": head, "data": data}.items():
            choices = sorted(found[column].dropna().unique())
            if name is not None and name not in choices:
                hint = closest(name, choices)
                raise InputError(f"{what} has no pairs with {column} '{name}': {hint}")
            if name is None and len(choices) > 1:
                raise InputError(
                    f"{what} has several choices of {column}: name one of {', '.join(choices)}"
                )
            if name is not None:
                found = found[found[column] == name]
        rows = found[list(Comparison._fields)].astype(object)
        rows = rows.where(rows.notna(), None)
        return [Comparison(*row) for row in rows.itertuples(index=False)]

    def models_of(self, members: Sequence[Comparison]) -> pd.DataFrame:
        """Those of ``models`` that take part in a comparison."""
        task = members[0].task
        return self.models() if task is None else self.models_on(task)

    def _known(self, comparison: Comparison) -> dict[str, Any]:
        """How the values of a comparison read."""
        known = self.table("comparisons")
        for name, value in comparison._asdict().items():
            known = known[known[name].isna() if value is None else known[name] == value]
        return dict(known.iloc[0])

    def _line(self, task: str | None, found: pd.DataFrame) -> str:
        """The task or family of that name; without a name, the only one."""
        tasks = self.tasks()
        lines = tasks["family"].fillna(tasks["task"]).unique().tolist()
        if task is None:
            compared = tasks[tasks["task"].isin(found["task"])]
            choices = compared["family"].fillna(compared["task"]).unique().tolist()
            if len(choices) > 1:
                raise InputError(f"there are several tasks: name one of {', '.join(choices)}")
            return str(choices[0])
        if task not in {*lines, *tasks["task"]}:
            # a name near to none is told the lines, not hundreds of tasks
            near = get_close_matches(task, [*lines, *tasks["task"]], n=1, cutoff=0.5)
            raise InputError(f"no task is called '{task}': {closest(task, near or lines)}")
        return task

    def _tasks_of(self, line: str) -> list[str]:
        """The tasks of a family, or the one task of that name."""
        tasks = self.tasks()
        family = tasks.loc[tasks["family"] == line, "task"].tolist()
        return family or [line]


def _shares(
    members: Sequence[Comparison], weights: Mapping[str, float] | None
) -> list[float] | None:
    """The weight of each member; None for equal ones."""
    if weights is None:
        return None
    names = [str(member.task) for member in members]
    if set(weights) != set(names):
        odd = min(set(weights) ^ set(names))
        raise InputError(f"'weights' has one number for each of the tasks; see '{odd}'")
    return [weights[name] for name in names]
