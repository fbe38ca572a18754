"""The lines of an experiment as the page shows them: a task each, or a family of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from td_ray.report.units import Unit, score_unit, unit_of
from td_ray.results.tables import Results


@dataclass(frozen=True, eq=False)
class Line:
    """A task, or a family of tasks that one line of the experiment stands for.

    Attributes:
        name: of the task or of the family.
        tasks: their rows of the tasks table, which differ in name, classes and size alone.
        is_family: a family may have a single task.
    """

    name: str
    tasks: pd.DataFrame
    is_family: bool

    @property
    def kind(self) -> str:
        """Classification or regression."""
        return str(self.tasks["kind"].iloc[0])

    @property
    def distance(self) -> str | None:
        """Of regression: how td is measured."""
        distance = self.tasks["distance"].iloc[0]
        return None if pd.isna(distance) else str(distance)

    @property
    def data(self) -> str:
        """The data set that heads are fitted on."""
        return str(self.tasks["data"].iloc[0])

    @property
    def evaluated_on(self) -> list[str]:
        """The data sets that are predicted."""
        return list(self.tasks["evaluated_on"].iloc[0])

    @property
    def target(self) -> str:
        """The column of the target, or that there is none."""
        target = self.tasks["target"].iloc[0]
        return "a drawn target" if pd.isna(target) else str(target)

    @property
    def n_classes(self) -> str:
        """The number of classes, or the range of it."""
        return span(self.tasks["classes"].map(len))

    @property
    def unit(self) -> Unit:
        """The unit of td."""
        return unit_of(self.kind, self.distance)

    @property
    def score_unit(self) -> Unit:
        """The unit of the scores."""
        return score_unit(self.kind)

    @property
    def title(self) -> str:
        """The name, and the number of tasks of a family."""
        return f"{self.name} ({counted(len(self.tasks), 'task')})" if self.is_family else self.name


def lines_of(results: Results) -> list[Line]:
    """All lines, in the tasks' order."""
    tasks = results.tasks()
    name = tasks["family"].fillna(tasks["task"])
    return [
        Line(str(line), rows.reset_index(drop=True), bool(rows["family"].notna().all()))
        for line, rows in tasks.groupby(name, sort=False)
    ]


def span(values: pd.Series[int]) -> str:
    """A number, or the least and the largest where they differ."""
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,}\N{EN DASH}{high:,}"


def counted(count: int, noun: str) -> str:
    """A number and its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def spread(line: Line, each_task: list[dict[str, Any]], heads: pd.DataFrame) -> pd.DataFrame:
    """What the tasks of a family have in common, and what not.

    Args:
        each_task: name, mean ``td`` over pairs and mean ``floor`` over representations of each.
        heads: those on the full training split, of one head and data set.

    Returns:
        Mean ``td``, ``floor`` and ``score`` (over representations) of each task, by its name; NaN
        where there is none. Sorted by td.
    """
    means = pd.DataFrame(each_task).set_index("task")
    score = heads["score"].astype(float).groupby(heads["task"]).mean()
    found = means.assign(score=score).reindex(pd.Index(line.tasks["task"], name="task"))
    return found.sort_values("td", kind="stable")
