"""What is to be known of the fitted heads, one row for each line, data set and head."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from td_ray.report.lines import lines_of
from td_ray.report.markup import Html, join, table, tag
from td_ray.report.units import NOTHING
from td_ray.results.tables import Results

# More different values than these are given by their range.
_MOST_VALUES = 4


def heads_table(results: Results) -> Html:
    """Scores, penalties or training, convergence and absent classes."""
    lines = {task: line for line in lines_of(results) for task in line.tasks["task"]}
    heads = results.heads()
    names = heads["task"].map({task: line.name for task, line in lines.items()})
    rows = []
    for (_, data, head), chosen in heads.groupby([names, "data", "head"], sort=False):
        line = lines[chosen["task"].iloc[0]]
        full = chosen[chosen["seed"].isna()]
        unit = line.score_unit
        worst = chosen["gradient_norm"].astype(float).max()
        rows.append(
            (
                line.title,
                data,
                head,
                _how(full),
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
        "Penalty (l2), or training",
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


def _how(full: pd.DataFrame) -> Html:
    """What was solved or how it was trained, for one task's heads on the full training split."""
    if full["penalty"].notna().any():
        return _penalty(full.dropna(subset=["penalty"]))
    if full["hyperparameters"].notna().any():
        return tag("span", _settings(full["hyperparameters"].dropna()))
    return Html("none: predictions were given" if full["n_train"].isna().all() else "none")


def _settings(hyperparameters: pd.Series[str]) -> str:
    """What heads were trained with: each name with all values that it has."""
    found: dict[str, list[str]] = {}
    for text in sorted(set(hyperparameters)):
        for name, value in json.loads(text).items():
            values = found.setdefault(name, [])
            if str(value) not in values:
                values.append(str(value))
    return ", ".join(f"{name} {' or '.join(values)}" for name, values in found.items())


def _penalty(known: pd.DataFrame) -> Html:
    """Penalties, and how many stand at the edge of their grid."""
    text = _values(list(known["penalty"].astype(float)))
    chosen = bool((known["penalty_source"] == "grid").any())
    text += ", chosen from a grid" if chosen else ", fixed"
    parts: list[object] = [tag("span", text, class_="whole" if len(text) < 40 else None)]
    at_edge = int(known["penalty_at_edge"].eq(True).sum())  # null where no grid was searched
    if at_edge:
        text = f"; at the edge of the grid for {at_edge} of {len(known)}: widen it"
        parts.append(tag("strong", text, class_="warning"))
    return join(parts)


def _values(values: list[float]) -> str:
    """Numbers and how often each is there, or their range."""
    distinct = sorted(set(values))
    if len(distinct) > _MOST_VALUES:
        return f"{distinct[0]:g} to {distinct[-1]:g}"
    if len(distinct) == 1:
        return f"{distinct[0]:g}"
    return ", ".join(f"{each:g} ({values.count(each)}\N{MULTIPLICATION SIGN})" for each in distinct)


def _absent(classes: pd.Series[Any]) -> str:
    """How many heads lack classes, and how many classes that concerns."""
    lists = [list(each) for each in classes if each is not None and len(each)]
    if not lists:
        return "0"
    names = {name for each in lists for name in each}
    return f"{len(lists):,} ({len(names):,} {'class' if len(names) == 1 else 'classes'})"
