"""What the measures beside td say, a row for each comparison."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from td_ray.report.comparisons import MEASURE
from td_ray.report.lines import lines_of
from td_ray.report.markup import Html, join, table, tag
from td_ray.report.units import NOTHING
from td_ray.results.tables import Results
from td_ray.results.td_matrix import TDMatrix

RANKED = 2000
"""Representations up to which pairs are ranked: two million of them take a second."""

Names = tuple[str | None, str, str | None, str]
"""Line (none for features), data set, head (likewise), measure."""


def other_measures(results: Results) -> Html:
    """Their table; nothing where there is none."""
    names = list(_names(results))
    if not names:
        return Html("")
    columns = [
        *("Measure", "Task", "Predicted data", "Head", "Higher is more"),
        *("Mean", "Least", "Largest", "Mean noise floor", "Without a value", "Rank correlation"),
    ]
    caption = (
        "Over all pairs; the rank correlation is with TD of the same task, similarities turned "
        f"round, for up to {RANKED:,} representations. The table comparisons says where each "
        "formula comes from."
    )
    rows = [_row(results, *each) for each in names]
    section = [tag("h2", "Other measures"), table(caption, columns, rows, texts=5)]
    return tag("section", join(section), id="measures")


def _names(results: Results) -> Iterator[Names]:
    """All comparisons by another measure than td, those of a family once."""
    known = results.comparisons()
    known = known[known["measure"] != MEASURE]
    for line in lines_of(results):
        own = known[known["task"].isin(set(line.tasks["task"]))]
        for data, head, measure in dict.fromkeys(_keys(own)):
            yield line.name, data, head, measure
    for data, _, measure in _keys(known[known["task"].isna()]):
        yield None, data, None, measure


def _keys(known: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(known[["data", "head", "measure"]].itertuples(index=False, name=None))


def _row(
    results: Results, line: str | None, data: str, head: str | None, measure: str
) -> tuple[object, ...]:
    matrix = results.matrix(line, measure, head=head, data=data)
    values = matrix.values[matrix.pairs]
    ends = pd.Series(values).agg(["mean", "min", "max"])
    direction = "similar" if matrix.scale.is_similarity else "different"
    correlation = np.nan
    has_td = line is not None and (results.comparisons()["measure"] == MEASURE).any()
    if has_td and len(matrix) <= RANKED:
        correlation = _rank_correlation(matrix, results.matrix(line, head=head, data=data))
    return (
        measure,
        line or NOTHING,
        data,
        head or NOTHING,
        direction,
        *map(_number, ends),
        _number(pd.Series(matrix.floors).mean()),
        f"{int(np.isnan(values).sum()):,}",
        _number(correlation),
    )


def _rank_correlation(matrix: TDMatrix, td: TDMatrix) -> float:
    """Spearman's, over pairs that have both values; NaN where one of the two is constant."""
    sign = -1 if matrix.scale.is_similarity else 1
    both = pd.DataFrame({"a": sign * matrix.values[matrix.pairs], "b": td.values[matrix.pairs]})
    ranks = both.dropna().rank()
    return float(ranks["a"].corr(ranks["b"])) if (ranks.nunique() > 1).all() else np.nan


def _number(value: float) -> str:
    text = NOTHING if np.isnan(value) else f"{value:.4f}"
    return text.replace("-", "\N{MINUS SIGN}")
