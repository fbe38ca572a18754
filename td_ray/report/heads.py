"""What is to be known of the fitted heads, one row for each task, data set and head."""

from __future__ import annotations

from typing import Any

import pandas as pd

from td_ray.report.markup import Html, join, table, tag
from td_ray.report.units import NOTHING, score_unit
from td_ray.results.tables import Results

# More different penalties than these are given by their range.
_MOST_PENALTIES = 4


def heads_table(results: Results) -> Html:
    """Scores, penalties, convergence and absent classes."""
    tasks = results.tasks()
    kinds = dict(zip(tasks["task"], tasks["kind"], strict=True))
    heads = results.heads()
    rows = []
    for key, chosen in heads.groupby(["task", "data", "head"], sort=False):
        task, data, head = key
        full = chosen[chosen["seed"].isna()]
        unit = score_unit(kinds[task])
        worst = chosen["gradient_norm"].astype(float).max()
        rows.append(
            (
                task,
                data,
                head,
                _penalty(full),
                f"{len(chosen):,}",
                f"{unit.text(full['train_score'].astype(float).mean())} {unit.title}",
                f"{unit.text(full['score'].astype(float).mean())} {unit.title}",
                NOTHING if pd.isna(worst) else f"{worst:.1e}",
                _absent(chosen["absent_classes"]),
            )
        )
    columns = [
        "Task",
        "Predicted data",
        "Head",
        "Penalty (l2)",
        "Heads",
        "Mean training score",
        "Mean held-out score",
        "Worst gradient norm",
        "Heads that lack classes",
    ]
    caption = (
        "Scores are means over the heads on the full training split; gradient norms and "
        "lacking classes are of all heads, those on halves included."
    )
    return table(caption, columns, rows, texts=4)


def _penalty(full: pd.DataFrame) -> Html:
    """The penalties of one task's heads, and how many stand at the edge of their grid."""
    known = full.dropna(subset=["penalty"])
    if known.empty:
        return Html("none: predictions were given")
    values = sorted(known["penalty"].astype(float))
    distinct = list(dict.fromkeys(values))
    if len(distinct) > _MOST_PENALTIES:
        text = f"{distinct[0]:g} to {distinct[-1]:g}"
    elif len(distinct) > 1:
        text = ", ".join(
            f"{value:g} ({values.count(value)}\N{MULTIPLICATION SIGN})" for value in distinct
        )
    else:
        text = f"{distinct[0]:g}"
    chosen = bool((known["penalty_source"] == "grid").any())
    text += ", chosen from a grid" if chosen else ", fixed"
    parts: list[object] = [tag("span", text, class_="whole" if len(text) < 40 else None)]
    at_edge = int(known["penalty_at_edge"].eq(True).sum())  # null where no grid was searched
    if at_edge:
        text = f"; at the edge of the grid for {at_edge} of {len(known)}: widen it"
        parts.append(tag("strong", text, class_="warning"))
    return join(parts)


def _absent(classes: pd.Series[Any]) -> str:
    """How many heads lack classes, and how many classes that concerns."""
    lists = [list(each) for each in classes if each is not None and len(each)]
    if not lists:
        return "0"
    names = {name for each in lists for name in each}
    return f"{len(lists):,} ({len(names):,} {'class' if len(names) == 1 else 'classes'})"
