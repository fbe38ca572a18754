"""Read the tables of a result."""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from td_ray.errors import InputError
from td_ray.registry import closest
from td_ray.results import matrix as matrices
from td_ray.results.failures import grouped_failures
from td_ray.results.schemas import TABLES


def open_results(path: str | os.PathLike[str]) -> Results:
    """Open the results in an output folder.

    Raises:
        InputError: there are none yet.
    """
    output = Path(path)
    if not (output / "results" / "pairs").is_dir():
        raise InputError(f"no results in {output}; 'td-ray run' writes them there")
    return Results(output)


class Results:
    """The tables of one output folder, read when asked for."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._read: dict[str, pd.DataFrame] = {}

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables as it is on disk.

        Raises:
            InputError: no such table.
        """
        if name not in TABLES:
            raise InputError(f"no table is called '{name}': {closest(name, TABLES)}")
        if name not in self._read:
            file = self.output / "results" / name / f"{name}.parquet"
            self._read[name] = parquet.read_table(file).to_pandas()
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
        """One row per pair of representations, task, data set, head and measure."""
        return self.table("pairs")

    def failures(self) -> pd.DataFrame:
        """Units that failed, with the error of each."""
        return self.table("failures")

    def grouped_failures(self) -> list[dict[str, Any]]:
        """The same as rows, what failed alike on the tasks of a family in one of them."""
        families = self.tasks().set_index("task")["family"].dropna().to_dict()
        return grouped_failures(self.failures().to_dict("records"), families)

    def matrix(
        self,
        task: str,
        measure: str = "td",
        *,
        head: str | None = None,
        data: str | None = None,
        value: str = "value",
    ) -> pd.DataFrame:
        """The symmetric matrix of one task, the names of those that take part on both axes.

        Args:
            task: the task's name, or a family's for the mean over its tasks.
            measure: the measure's name.
            head: needed where the task has several heads.
            data: the data set that is predicted; needed where there are several.
            value: ``value``, or the half-size ``tdx`` or ``excess``.

        Returns:
            A frame whose ``attrs`` hold ``missing`` (pairs without a value) and, for ``value``
            and ``tdx``, whose diagonal is 0 or the noise floor: what a representation differs
            from itself by.

        Raises:
            InputError: no such task, head or data set, or more than one to choose from.
        """
        pairs = self.select(task, measure, head, data)
        return matrices.to_matrix(pairs, self.models_on(task), value)

    def floors(
        self,
        task: str,
        measure: str = "td",
        *,
        head: str | None = None,
        data: str | None = None,
    ) -> pd.Series[float]:
        """The noise floor of each representation, at half the training set."""
        return matrices.floors(self.select(task, measure, head, data), self.models_on(task))

    def by_group(
        self,
        task: str,
        by: str,
        measure: str = "td",
        *,
        head: str | None = None,
        data: str | None = None,
        value: str = "value",
    ) -> pd.DataFrame:
        """Mean over pairs of distinct representations, within and between groups.

        Args:
            by: a metadata key, such as ``strategy``.

        Raises:
            InputError: no model has that key.
        """
        models = self.models()
        if by not in models:
            raise InputError(f"no model has metadata '{by}': {closest(by, models.columns)}")
        pairs = self.select(task, measure, head, data)
        return matrices.group_means(pairs, self.models_on(task), by, value)

    def select(
        self, task: str, measure: str = "td", head: str | None = None, data: str | None = None
    ) -> pd.DataFrame:
        """The pairs of one task, measure, head and data set; of a family, means over its tasks.

        Raises:
            InputError: nothing, or more than one thing, goes by what was given.
        """
        pairs = self.pairs()
        tasks = self.tasks()
        family = set(tasks.loc[tasks["family"] == task, "task"])
        lines = tasks["family"].fillna(tasks["task"]).unique().tolist()
        if task not in {*lines, *tasks["task"]}:
            # a name near to none is told the lines, not hundreds of tasks
            near = get_close_matches(task, [*lines, *tasks["task"]], n=1, cutoff=0.5)
            raise InputError(f"no task is called '{task}': {closest(task, near or lines)}")
        pairs = pairs[pairs["task"].isin(family or {task})]
        if pairs.empty:  # a single model, or none but one that did not fail
            return pairs
        wanted: dict[str, Any] = {"measure": measure, "head": head, "data": data}
        for column, name in wanted.items():
            found = sorted(set(pairs[column]))
            if name is None and len(found) > 1:
                choice = ", ".join(found)
                raise InputError(
                    f"task '{task}' has several choices of {column}: name one of {choice}"
                )
            if name is not None and name not in found:
                hint = closest(name, found)
                raise InputError(f"task '{task}' has no pairs with {column} '{name}': {hint}")
            if name is not None:
                pairs = pairs[pairs[column] == name]
        return matrices.family_means(pairs, task, len(family)) if family else pairs
