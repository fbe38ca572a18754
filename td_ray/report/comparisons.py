"""What the page shows of each task, gathered from the tables; no HTML here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from td_ray.errors import PartialMatrixWarning
from td_ray.report.grouping import Grouping, group, grouping_keys, shown_names
from td_ray.report.units import Unit, score_unit, unit_of
from td_ray.results.matrix import cluster_order, floors, labels, to_matrix
from td_ray.results.tables import Results

MEASURE = "td"


@dataclass(frozen=True, eq=False)
class Comparison:
    """All representations on one task, predicted data set and head.

    Attributes:
        number: its place on the page, from 1.
        task: the row of the tasks table.
        data: the data set that is predicted.
        n_examples: held-out examples; 0 where no pair is there.
        n_seeds: seeds behind the noise floors.
        td, tdx, excess: symmetric (N, N) matrices in clustered order; NaN where missing.
        floors: (N,) noise floors in the same order.
        missing: reasons, and the number of pairs that each left without a value.
        scores: held-out scores of the heads on the full training split, by name.
        groupings: by the metadata keys that are worth it; none without pairs.
    """

    number: int
    task: Any
    data: str
    head: str
    n_examples: int
    n_seeds: int
    td: pd.DataFrame
    tdx: pd.DataFrame
    excess: pd.DataFrame
    floors: pd.Series[float]
    missing: dict[str, int]
    scores: pd.Series[float]
    groupings: list[Grouping]

    @property
    def anchor(self) -> str:
        """The part of the page about it."""
        return f"comparison-{self.number}"

    @property
    def unit(self) -> Unit:
        """The unit of td."""
        return unit_of(self.task.kind, self.task.distance)

    @property
    def score_unit(self) -> Unit:
        """The unit of the scores."""
        return score_unit(self.task.kind)

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
    """One comparison for every task, evaluated data set and head, in the tasks' order.

    They come one by one, because the matrices of many large ones would not fit in memory.
    """
    heads = results.heads()
    pairs = results.pairs()
    pairs = pairs[pairs["measure"] == MEASURE]
    tables = {"heads": heads[heads["seed"].isna()], "pairs": pairs, "failures": results.failures()}
    number = 0
    tasks: list[Any] = list(results.tasks().itertuples())
    for task in tasks:
        of_task = {name: table[table["task"] == task.task] for name, table in tables.items()}
        names = pd.concat([table["head"] for table in of_task.values()]).dropna()
        taking = results.models_on(task.task)
        keys = grouping_keys(taking)
        for data in task.evaluated_on:
            for head in dict.fromkeys(names):
                number += 1
                chosen = {
                    name: table[table["head"] == head]
                    if name == "failures"  # which cost every data set
                    else table[(table["head"] == head) & (table["data"] == data)]
                    for name, table in of_task.items()
                }
                yield _comparison(number, task, data, head, taking, keys, **chosen)


def _comparison(
    number: int,
    task: Any,
    data: str,
    head: str,
    models: pd.DataFrame,
    keys: list[str],
    heads: pd.DataFrame,
    pairs: pd.DataFrame,
    failures: pd.DataFrame,
) -> Comparison:
    scores = _scores(heads, models)
    return Comparison(
        number,
        task,
        data,
        head,
        n_examples=int(pairs["n_examples"].max()) if len(pairs) else 0,
        n_seeds=int(pairs["n_seeds"].max()) if len(pairs) else 0,
        **_matrices(pairs, models),
        missing=_missing(pairs, models, failures),
        scores=scores,
        groupings=[group(key, pairs, models, scores) for key in keys if len(pairs)],
    )


def _matrices(pairs: pd.DataFrame, models: pd.DataFrame) -> dict[str, Any]:
    with warnings.catch_warnings():
        # What is missing is counted and said on the page.
        warnings.simplefilter("ignore", PartialMatrixWarning)
        td, tdx, excess = (to_matrix(pairs, models, value) for value in ("value", "tdx", "excess"))
    order: Any = np.arange(len(td))
    if not np.isnan(above_diagonal(td)).all():
        order = cluster_order(td)
    found = {"td": td, "tdx": tdx, "excess": excess}
    ordered: dict[str, Any] = {name: frame.iloc[order, order] for name, frame in found.items()}
    return ordered | {"floors": floors(pairs, models).iloc[order]}


def _missing(pairs: pd.DataFrame, models: pd.DataFrame, failures: pd.DataFrame) -> dict[str, int]:
    """Reasons why pairs have no value, with their numbers, most frequent first."""
    without = pairs[pairs["value"].isna()]
    reasons = without["reason"].fillna("null, and no reason was recorded").value_counts()
    failed = set(labels(failures)) & set(labels(models))
    sides = [labels(pairs, f"model_{side}", f"layer_{side}").isin(failed) for side in "ab"]
    among_all, among_whole = (_pairs_of(n) for n in (len(models), len(models) - len(failed)))
    by_failure = among_all - among_whole - int((sides[0] | sides[1]).sum())
    absent = among_all - len(pairs)
    counts = {str(reason): int(count) for reason, count in reasons.items()}
    counts["a head or the features of one of the two failed"] = by_failure
    counts["not asked for, or not computed yet"] = absent - by_failure
    return {reason: count for reason, count in counts.items() if count}


def _pairs_of(n: int) -> int:
    return n * (n - 1) // 2


def _scores(heads: pd.DataFrame, models: pd.DataFrame) -> pd.Series[float]:
    values = dict(zip(labels(heads), heads["score"].astype(float), strict=True))
    scores = labels(models).map(values).astype(float)
    return scores.set_axis(shown_names(models))
