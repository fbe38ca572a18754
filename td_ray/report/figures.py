"""The numbers of the drawings as compact JSON; ``page.js`` draws them.

A symmetric matrix is its upper triangle in base64: little-endian float32, NaN where missing, for
up to 300 representations. Above that the page stays usable because only td is kept, in 16-bit
steps (0.0001, or larger where values would not fit), 65535 where missing.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from td_ray.report.comparisons import Comparison, above_diagonal
from td_ray.report.grouping import Grouping
from td_ray.report.markup import Html, tag
from td_ray.report.units import Unit

DETAILED = 300
"""The most representations whose cells carry tdx and excess, unrounded."""

STEP = 1e-4
_MISSING = 65535


def matrix_figure(comparison: Comparison) -> dict[str, Any]:
    """The heat map and the noise floors beside it."""
    detailed = len(comparison.names) <= DETAILED
    td = above_diagonal(comparison.td)
    figure: dict[str, Any] = {
        "kind": "matrix",
        "names": comparison.names,
        "unit": comparison.line.unit.to_json(),
        "floors": _nullable(comparison.floors),
        "missing": comparison.n_missing,
        "td": _exact(td) if detailed else _stepped(td, step_of(comparison)),
    }
    if detailed:
        figure["tdx"] = _exact(above_diagonal(comparison.tdx))
        figure["excess"] = _exact(above_diagonal(comparison.excess))
    return figure


def groups_figure(grouping: Grouping, unit: Unit, score_unit: Unit) -> dict[str, Any]:
    """Mean mutual td and noise floor of each group against its mean score."""
    return {
        "kind": "groups",
        "key": grouping.key,
        "names": grouping.names,
        "unit": unit.to_json(),
        "score_unit": score_unit.to_json(),
        "td": _nullable(grouping.mutual),
        "floors": _nullable(grouping.means["floor"]),
        "scores": _nullable(grouping.scores),
    }


def tasks_figure(spread: pd.DataFrame, unit: Unit, score_unit: Unit) -> dict[str, Any]:
    """Mean td, noise floor and score of each task of a family, in the order of the frame."""
    return {
        "kind": "tasks",
        "names": [str(name) for name in spread.index],
        "unit": unit.to_json(),
        "score_unit": score_unit.to_json(),
        "td": _nullable(spread["td"]),
        "floors": _nullable(spread["floor"]),
        "scores": _nullable(spread["score"]),
    }


def figure_element(name: str, numbers: dict[str, Any], label: str, note: str) -> Html:
    """A place to draw in, the numbers to draw, and what is seen."""
    script = Html(f'<script type="application/json">{to_script(numbers)}</script>')
    drawing = tag("div", id=name, class_="drawing", role="img", aria_label=label)
    return tag("figure", drawing, script, tag("figcaption", note), class_=f"plot {numbers['kind']}")


def to_script(figure: dict[str, Any]) -> str:
    """JSON that can stand in a script element, whatever the names in it."""
    text = json.dumps(figure, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _nullable(values: pd.Series[float]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _exact(values: NDArray[np.float64]) -> dict[str, Any]:
    return {"values": _base64(values.astype("<f4")), "step": None}


def step_of(comparison: Comparison) -> float:
    """What td is rounded to where there are too many representations for exact values."""
    return max(STEP, float(np.nanmax(above_diagonal(comparison.td))) / (_MISSING - 1))


def _stepped(values: NDArray[np.float64], step: float) -> dict[str, Any]:
    steps = np.where(np.isnan(values), _MISSING, np.rint(values / step)).astype("<u2")
    return {"values": _base64(steps), "step": step}


def _base64(values: NDArray[Any]) -> str:
    return b64encode(values.tobytes()).decode("ascii")
