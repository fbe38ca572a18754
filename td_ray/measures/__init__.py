"""Measures of difference between representations, by name. Arrays in, matrices out.

A measure has a form for each distance that it can use: `td` is the disagreement of predicted
classes, or one of three distances between predicted values. Each form declares its range and
whether it is squared, each measure its direction and the source of its formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.disagreement import disagreement
from td_ray.measures.regression import DISTANCES, has_direction, value_distance
from td_ray.registry import MEASURES, closest

__all__ = [
    "DIFFERENT",
    "DISTANCES",
    "SIMILAR",
    "Form",
    "Measure",
    "disagreement",
    "distance_matrix",
    "find_measure",
    "has_direction",
    "value_distance",
]

DIFFERENT, SIMILAR = "higher is more different", "higher is more similar"
CLASSIFICATION, REGRESSION = "classification", "regression"
Matrix = NDArray[Any]


@dataclass(frozen=True)
class Form:
    """One way in which a measure compares predictions.

    Attributes:
        kind: of task, "classification" or "regression".
        range: smallest and largest possible value.
        squared: whether it is a squared distance, so that its square root is the metric.
        between: (A, n) and (B, n) predictions to an (A, B) float64 matrix.
    """

    kind: str
    range: tuple[float, float]
    squared: bool
    between: Callable[[Matrix, Matrix], NDArray[np.float64]]


@dataclass(frozen=True)
class Measure:
    """A measure and how to read it.

    Attributes:
        name: under which it is registered.
        direction: `DIFFERENT` or `SIMILAR`.
        source: of its formula.
        forms: by the name of the distance.
        itself: its value between equal predictions; None where that depends on them.
        is_symmetric: whether (a, b) and (b, a) have one value.
    """

    name: str
    direction: str
    source: str
    forms: Mapping[str, Form]
    itself: float | None = 0.0
    is_symmetric: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of task that it can compare."""
        return tuple(sorted({form.kind for form in self.forms.values()}))

    def form(self, kind: str, distance: str) -> Form:
        """The form for a kind of task; `distance` chooses among those of a regression task.

        Raises:
            InputError: the measure has no such form.
        """
        forms = {name: form for name, form in self.forms.items() if form.kind == kind}
        if not forms:
            raise InputError(
                f"measure '{self.name}' compares {' and '.join(self.kinds)}, not '{kind}'"
            )
        if kind == CLASSIFICATION:
            return next(iter(forms.values()))
        if distance not in forms:
            raise InputError(
                f"unknown distance '{distance}' of {self.name}: {closest(distance, forms)}"
            )
        return forms[distance]


def find_measure(name: str) -> Measure:
    """The registered measure of that name.

    Raises:
        InputError: no such measure; the message carries the closest name.
    """
    measure: Measure = MEASURES.get(name)
    return measure


def distance_matrix(
    measure: str, kind: str, a: Matrix, b: Matrix, *, distance: str = "cosine"
) -> NDArray[np.float64]:
    """Compare every head of one set with every head of another.

    Args:
        measure: a registered name, "td".
        kind: of task, "classification" or "regression".
        a: (A, n) predictions: integer classes, or values less the training mean of the target.
        b: (B, n) predictions for the same n examples.
        distance: of a regression task: "cosine", "mean" or "none".

    Returns:
        (A, B) float64; NaN where a value has no direction to compare.

    Raises:
        InputError: unknown names, or predictions that do not fit together.
    """
    return find_measure(measure).form(kind, distance).between(a, b)


MEASURES.register("td")(
    Measure(
        name="td",
        direction=DIFFERENT,
        source="Feng, Zhai, He, Wang, Dong 2020, arXiv 2007.12446",
        forms={
            "disagreement": Form(CLASSIFICATION, (0.0, 1.0), False, disagreement),
            "cosine": Form(REGRESSION, (0.0, 4.0), True, partial(value_distance, kind="cosine")),
            "mean": Form(REGRESSION, (0.0, 4.0), True, partial(value_distance, kind="mean")),
            "none": Form(REGRESSION, (0.0, math.inf), True, partial(value_distance, kind="none")),
        },
    )
)
