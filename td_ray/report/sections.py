"""The sections of the page that stand for one comparison each: a task or a family of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from td_ray.report.comparisons import Comparison, above_diagonal
from td_ray.report.figures import DETAILED, figure_element, groups_figure, matrix_figure, step_of
from td_ray.report.grouping import Grouping
from td_ray.report.lines import counted, span
from td_ray.report.markup import Html, join, safe, table, tag
from td_ray.report.tasks import tasks_of_family

# Wider matrices take the whole width of the page, and the groups go below them.
_BESIDE_GROUPS = 20

NO_SEEDS = "no seeds, and so no noise floor"


def overview(rows: list[tuple[object, ...]]) -> Html:
    """The way to every section, with its means; rows are of ``overview_row``."""
    columns = [
        "Task",
        "Predicted data",
        "Head",
        "Mean TD",
        "Mean noise floor",
        "Mean excess",
        "Mean score",
        "Representations",
        "Pairs without a value",
    ]
    caption = (
        "Means over all pairs and representations. Noise floor and excess are at half the "
        "training split."
    )
    return table(caption, columns, rows, texts=3)


def overview_row(comparison: Comparison) -> tuple[object, ...]:
    """One comparison in the overview."""
    text, scores = comparison.line.unit.text, comparison.line.score_unit
    return (
        tag("a", comparison.line.title, href=f"#{comparison.anchor}"),
        comparison.data,
        comparison.head,
        text(_mean(above_diagonal(comparison.td))),
        text(_mean(comparison.floors)),
        text(_mean(above_diagonal(comparison.excess))),
        f"{scores.text(_mean(comparison.scores))} {scores.title}",
        f"{len(comparison.names):,}",
        f"{comparison.n_missing:,}",
    )


def section(comparison: Comparison) -> Html:
    """The drawings and tables of one comparison."""
    place = tag("span", f" {comparison.head} head on {comparison.data}")
    title = tag("h2", comparison.line.name, place)
    body = join([title, _facts(comparison), _summary(comparison)])
    if not comparison.is_empty:
        body = join([body, _drawings(comparison)])
    body = join(
        [body, _missing(comparison), *(_means(comparison, each) for each in comparison.groupings)]
    )
    if comparison.spread is not None:
        body = join([body, tasks_of_family(comparison, comparison.spread)])
    return tag("section", body, id=comparison.anchor)


def _facts(comparison: Comparison) -> Html:
    line = comparison.line
    what = f"{line.n_classes} classes"
    if line.kind != "classification":
        what = f"distance: {line.distance}"
    facts = [
        *([f"means over {counted(len(line.tasks), 'task')}"] if line.is_family else []),
        f"{line.kind} of {line.target} ({what})",
        f"heads fitted on {span(line.tasks['n_train'])} examples of {line.data}",
        f"compared on {comparison.n_examples or 'no'} held-out examples of {comparison.data}",
        counted(comparison.n_seeds, "seed") if comparison.n_seeds else NO_SEEDS,
    ]
    return tag("p", join(map(safe, facts), " \N{MIDDLE DOT} "), class_="facts")


def _summary(comparison: Comparison) -> Html:
    """The least, mean and largest td in a sentence."""
    values = above_diagonal(comparison.td)
    if comparison.is_empty:
        where = "on all tasks of this family" if comparison.line.is_family else "here"
        return tag("p", f"No pair has a value {where}.")
    text = comparison.line.unit.text
    rows, columns = np.triu_indices(len(comparison.names), 1)

    def pair(place: int) -> Html:
        names = (comparison.names[rows[place]], comparison.names[columns[place]])
        return join([tag("b", name) for name in names], " and ")

    mean = f"TD is {text(_mean(values))}"
    if comparison.line.kind == "classification":
        mean = f"{text(_mean(values))} of held-out predictions differ"
    parts: list[object] = [f"Between two representations, {mean} on average"]
    if len(values) > 1:
        for word, place in (("from", np.nanargmin(values)), ("to", np.nanargmax(values))):
            lead = ", " if word == "from" else " "
            parts += [f"{lead}{word} {text(values[place])} (", pair(int(place)), ")"]
    floor = _mean(comparison.floors)
    if not np.isnan(floor):
        parts.append(f". The mean noise floor, at half the training split, is {text(floor)}")
    return tag("p", *parts, ".")


def _drawings(comparison: Comparison) -> Html:
    size = len(comparison.names)
    name = f"TD between {size} representations on task {comparison.line.title}"
    figure = matrix_figure(comparison)
    matrix = figure_element(f"matrix-{comparison.number}", figure, name, _matrix_note(comparison))
    groups = []
    for place, grouping in enumerate(comparison.groupings, start=1):
        figure = groups_figure(grouping, comparison.line.unit, comparison.line.score_unit)
        if grouping.is_drawable:
            label = f"TD within each group of {grouping.key} against mean score"
            name = f"groups-{comparison.number}-{place}"
            groups.append(figure_element(name, figure, label, _groups_note(grouping)))
    if not groups:
        return tag("div", matrix, class_="drawings")
    layout = "drawings beside" if size <= _BESIDE_GROUPS else "drawings"
    return tag("div", matrix, tag("div", *groups, class_="groups-plots"), class_=layout)


def _matrix_note(comparison: Comparison) -> str:
    note = ["Rows and columns are in clustered order: alike representations stand side by side."]
    if comparison.floors.notna().any():
        note.append(
            "The column beside the matrix is each one\N{RIGHT SINGLE QUOTATION MARK}s noise floor, "
            "in the same colours, at half the training split."
        )
    if comparison.n_missing:
        note.append("Hatched: no value.")
    if len(comparison.names) > DETAILED:
        step = comparison.line.unit.text(step_of(comparison))
        note.append(
            f"Above {DETAILED} representations, cells show TD alone, rounded to {step}. "
            "Drag to zoom, double-click to go back."
        )
    return " ".join(note)


def _groups_note(grouping: Grouping) -> str:
    alone = [name for name in grouping.names if np.isnan(grouping.mutual[name])]
    note = f"Each group is one value of {grouping.key}: mean TD between its distinct "
    note += "representations, and their mean noise floor, at half the training split."
    if alone:
        note += f" Without a pair of their own, and so without a TD: {', '.join(alone)}."
    return note


def _missing(comparison: Comparison) -> Html:
    if not comparison.n_missing:
        return Html("")
    size = len(comparison.names)
    total = size * (size - 1) // 2
    reasons = [tag("li", f"{count:,}: {reason}") for reason, count in comparison.missing.items()]
    return tag(
        "div",
        tag(
            "p",
            tag("b", f"{comparison.n_missing:,} of {total:,} pairs have no value"),
            " and are left blank:",
        ),
        tag("ul", *reasons),
        class_="missing",
    )


def _means(comparison: Comparison, grouping: Grouping) -> Html:
    text = comparison.line.unit.text
    rows = []
    for place, name in enumerate(grouping.names):
        *means, floor = grouping.means.to_numpy(dtype=float)[place].tolist()
        cells = [text(value) for value in means]
        cells[place] = tag("b", cells[place])
        score = comparison.line.score_unit.text(float(grouping.scores.iloc[place]))
        rows.append((name, f"{grouping.sizes.iloc[place]:,}", score, *cells, text(floor)))
    caption = (
        f"Mean TD by {grouping.key}, over pairs of distinct representations; bold within a group."
    )
    score_title = f"Mean {comparison.line.score_unit.title}"
    columns = [grouping.key, "Number", score_title, *grouping.names, "Noise floor"]
    return table(caption, columns, rows)


def _mean(values: pd.Series[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The mean of what is there; NaN of nothing."""
    return float(pd.Series(values).mean())
