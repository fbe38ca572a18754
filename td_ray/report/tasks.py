"""How far the tasks of a family lie apart: a drawing and a table."""

from __future__ import annotations

import pandas as pd

from td_ray.report.comparisons import Comparison
from td_ray.report.figures import figure_element, tasks_figure
from td_ray.report.markup import Html, join, table, tag

MOST_TASKS = 200
"""The most rows of the table; the drawing has all tasks."""

_FEW = 10


def tasks_of_family(comparison: Comparison, spread: pd.DataFrame) -> Html:
    """The tasks of a family from least to most td; ``spread`` is the comparison's own."""
    line, known = comparison.line, spread.dropna(subset=["td"])
    if known.empty or len(spread) == 1:
        return Html("")
    figure = figure_element(
        f"tasks-{comparison.number}",
        tasks_figure(known, line.unit, line.score_unit),
        f"Mean TD, noise floor and score of each task of {line.name}",
        "A column is a task, from the least mean TD to the most. Point at one for its name.",
    )
    content = [tag("h3", "Its tasks"), _summary(comparison, known), figure]
    return join([*content, _table(comparison, spread)])


def _summary(comparison: Comparison, known: pd.DataFrame) -> Html:
    """The least and the largest mean td of a task in a sentence."""
    text, td = comparison.line.unit.text, known["td"]
    if len(known) == 1:
        return tag("p", "Only one task has a value, ", tag("b", known.index[0]), ".")
    ends: list[object] = []
    for word, place in (("from", 0), (" to", -1)):
        ends += [f"{word} {text(td.iloc[place])} (", tag("b", known.index[place]), ")"]
    return tag("p", "Mean TD goes ", *ends, f", with a median of {text(td.median())}.")


def _table(comparison: Comparison, spread: pd.DataFrame) -> Html:
    """All numbers of the drawing; the two ends of a large family."""
    line, half = comparison.line, MOST_TASKS // 2
    cut = len(spread) > MOST_TASKS
    shown = pd.concat([spread.head(half), spread.tail(half)]) if cut else spread
    text, score = line.unit.text, line.score_unit.text
    rows = [
        (name, text(td), text(floor), score(mean))
        for name, (td, floor, mean) in zip(shown.index, shown.to_numpy().tolist(), strict=True)
    ]
    caption = "Means over pairs and representations, from the least TD to the most"
    if cut:
        caption += f"; {half} tasks from either end, and all are in the tables"
    columns = ["Task", "Mean TD", "Mean noise floor", f"Mean {line.score_unit.title}"]
    summary = tag("summary", f"The {len(shown):,} tasks of {line.name} in numbers")
    opened = "" if len(spread) <= _FEW else None
    return tag("details", summary, table(f"{caption}.", columns, rows), class_="tasks", open=opened)
