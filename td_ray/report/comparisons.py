"""What the page shows of each line of the experiment, gathered from the tables; no HTML here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from td_ray.report.grouping import Grouping, group, grouping_keys
from td_ray.report.lines import Line, lines_of, span, spread
from td_ray.results.names import labels, names_of
from td_ray.results.pairs_table import VALUES, Gathered, gathered_mean
from td_ray.results.pairs_table import Comparison as Key
from td_ray.results.tables import Results
from td_ray.results.td_matrix import TDMatrix

MEASURE = "td"


@dataclass(frozen=True, eq=False)
class Comparison:
    """All representations on one task or family, predicted data set and head.

    All numbers of a family are means over its tasks.

    Attributes:
        number: its place on the page, from 1.
        line: the task or family.
        data: the data set that is predicted.
        n_examples: held-out examples, or their range over tasks; empty where no pair is there.
        n_seeds: seeds behind the noise floors.
        td, tdx, excess: symmetric (N, N) matrices in clustered order; NaN where missing.
        floors: (N,) noise floors in the same order.
        missing: reasons, and the number of pairs that each left without a value.
        scores: held-out scores of the heads on the full training split, by name.
        groupings: by the metadata keys that are worth it; none without pairs.
        spread: of a family: mean td, floor and score of each task.
    """

    number: int
    line: Line
    data: str
    head: str
    n_examples: str
    n_seeds: int
    td: pd.DataFrame
    tdx: pd.DataFrame
    excess: pd.DataFrame
    floors: pd.Series[float]
    missing: dict[str, int]
    scores: pd.Series[float]
    groupings: list[Grouping]
    spread: pd.DataFrame | None

    @property
    def anchor(self) -> str:
        """The part of the page about it."""
        return f"comparison-{self.number}"

    @property
    def names(self) -> list[str]:
        """Names of the representations in clustered order."""
        return [str(name) for name in self.td.index]

    @property
    def n_missing(self) -> int:
        """Pairs without a value."""
        return sum(self.missing.values())

    @property
    def is_empty(self) -> bool:
        """Whether no pair has a value."""
        return bool(np.isnan(above_diagonal(self.td)).all())


def above_diagonal(matrix: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The N(N-1)/2 values above the diagonal, row by row."""
    values: np.ndarray[Any, np.dtype[np.float64]] = matrix.to_numpy(dtype=float)
    return values[np.triu_indices(len(values), 1)]


def comparisons(results: Results) -> Iterator[Comparison]:
    """One comparison for every line, evaluated data set and head, in the tasks' order.

    They come one by one, because the matrices of many large ones would not fit in memory.
    """
    heads, failures, known = results.heads(), results.failures(), results.comparisons()
    heads = heads[heads["seed"].isna()]
    known = known[known["measure"] == MEASURE]
    number = 0
    for line in lines_of(results):
        own = set(line.tasks["task"])
        of_line = known[known["task"].isin(own)]
        keys = grouping_keys(results.models_on(line.name))
        for data in line.evaluated_on:
            for head in dict.fromkeys(of_line["head"]):
                number += 1
                chosen = (heads["head"] == head) & (heads["data"] == data)
                yield _comparison(
                    results,
                    (number, line, data, head),
                    keys,
                    heads[chosen & heads["task"].isin(own)],
                    # a failure costs every data set
                    failures[failures["task"].isin(own) & (failures["head"] == head)],
                )


def _comparison(
    results: Results,
    place: tuple[int, Line, str, str],
    keys: list[str],
    heads: pd.DataFrame,
    failures: pd.DataFrame,
) -> Comparison:
    _, line, data, head = place
    members = results.members(line.name, MEASURE, head, data)
    models = results.models_of(members)
    if line.is_family:
        each_task: list[dict[str, Any]] = []
        found = gathered_mean(
            _noting(results.gather_each(members, models), each_task, len(members))
        )
        spread_of_tasks = spread(line, each_task, heads)
    else:
        found, spread_of_tasks = results.gather(members, models), None
    matrices = {name: results.to_matrix(members[0], models, found, name) for name in VALUES}
    td = matrices["value"]
    order = td.clustering_order()
    scores = _scores(heads, models, len(line.tasks))
    sizes = pd.Series(found.n_examples or (), dtype=int)
    return Comparison(
        *place,
        n_examples=span(sizes) if len(sizes) else "",
        n_seeds=found.n_seeds,
        td=_frame(td.take(order)),
        tdx=_frame(matrices["tdx"].take(order)),
        excess=_frame(matrices["excess"].take(order)),
        floors=pd.Series(td.floors, index=td.names, name="floor").iloc[order],
        missing=_missing(found, models, failures),
        scores=scores,
        groupings=[group(key, td, scores) for key in keys if found.listed.any()],
        spread=spread_of_tasks,
    )


def _noting(
    each: Iterator[tuple[Key, Gathered]], noted: list[dict[str, Any]], n_tasks: int
) -> Iterator[tuple[float, Gathered]]:
    """Equal shares of the tasks, with the mean td and floor of each noted on the way."""
    for member, found in each:
        td = pd.Series(found.values["value"][np.triu_indices(len(found.floors), 1)])
        floor = pd.Series(found.floors).mean()
        noted.append({"task": member.task, "td": td.mean(), "floor": floor})
        yield 1 / n_tasks, found


def _frame(matrix: TDMatrix) -> pd.DataFrame:
    """Without the warning of ``to_pandas``: what is missing is counted and said on the page."""
    return pd.DataFrame(matrix.values, index=matrix.names, columns=matrix.names)


def _missing(found: Gathered, models: pd.DataFrame, failures: pd.DataFrame) -> dict[str, int]:
    """Reasons why pairs have no value, with their numbers, most frequent first."""
    failed = labels(models).isin(set(labels(failures))).to_numpy()
    above = np.triu(np.ones(found.listed.shape, dtype=np.bool_), 1)
    absent = above & ~found.listed
    by_failure = int((absent & (failed[:, None] | failed[None, :])).sum())
    counts = dict(found.reasons.most_common())
    counts["a head or the features of one of the two failed"] = by_failure
    counts["not asked for, or not computed yet"] = int(absent.sum()) - by_failure
    return {reason: count for reason, count in counts.items() if count}


def _scores(heads: pd.DataFrame, models: pd.DataFrame, n_tasks: int) -> pd.Series[float]:
    """Mean score on all tasks of a line; NaN where a head on one of them is lacking."""
    grouped = heads["score"].astype(float).groupby(labels(heads))
    values = grouped.mean().where(grouped.count() == n_tasks)
    scores = labels(models).map(values).astype(float)
    return scores.set_axis(names_of(models))
