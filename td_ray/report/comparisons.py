"""What the page shows of each line of the experiment, gathered from the tables; no HTML here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from td_ray.errors import PartialMatrixWarning
from td_ray.report.grouping import Grouping, group, grouping_keys, shown_names
from td_ray.report.lines import Line, lines_of, span, spread
from td_ray.results.matrix import cluster_order, family_means, floors, labels, to_matrix
from td_ray.results.tables import Results

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
    heads = results.heads()
    pairs = results.pairs()
    pairs = pairs[pairs["measure"] == MEASURE]
    tables = {"heads": heads[heads["seed"].isna()], "pairs": pairs, "failures": results.failures()}
    number = 0
    for line in lines_of(results):
        own = set(line.tasks["task"])
        of_line = {name: table[table["task"].isin(own)] for name, table in tables.items()}
        names = pd.concat([table["head"] for table in of_line.values()]).dropna()
        taking = results.models_on(line.name)
        keys = grouping_keys(taking)
        for data in line.evaluated_on:
            for head in dict.fromkeys(names):
                number += 1
                chosen = {
                    name: table[table["head"] == head]
                    if name == "failures"  # which cost every data set
                    else table[(table["head"] == head) & (table["data"] == data)]
                    for name, table in of_line.items()
                }
                yield _comparison(number, line, data, head, taking, keys, **chosen)


def _comparison(
    number: int,
    line: Line,
    data: str,
    head: str,
    models: pd.DataFrame,
    keys: list[str],
    heads: pd.DataFrame,
    pairs: pd.DataFrame,
    failures: pd.DataFrame,
) -> Comparison:
    n_examples = span(pairs["n_examples"]) if len(pairs) else ""
    each_task = spread(line, pairs, heads) if line.is_family else None
    if line.is_family:
        pairs = family_means(pairs, line.name, len(line.tasks))
    scores = _scores(heads, models, len(line.tasks))
    return Comparison(
        number,
        line,
        data,
        head,
        n_examples=n_examples,
        n_seeds=int(pairs["n_seeds"].max()) if len(pairs) else 0,
        **_matrices(pairs, models),
        missing=_missing(pairs, models, failures),
        scores=scores,
        groupings=[group(key, pairs, models, scores) for key in keys if len(pairs)],
        spread=each_task,
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


def _scores(heads: pd.DataFrame, models: pd.DataFrame, n_tasks: int) -> pd.Series[float]:
    """Mean score on all tasks of a line; NaN where a head on one of them is lacking."""
    grouped = heads["score"].astype(float).groupby(labels(heads))
    values = grouped.mean().where(grouped.count() == n_tasks)
    scores = labels(models).map(values).astype(float)
    return scores.set_axis(shown_names(models))
