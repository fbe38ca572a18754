"""Measures of difference between heads' predictions, by name. Arrays in, matrices out.

A measure is a function of sums over examples (`sums.Statistic`), so that leaving out a block of
examples, of which its standard error is made, is a subtraction. It has a form for each distance
that it can use: `td` is the disagreement of predicted classes, or one of three distances between
predicted values. Its companions are in `companions`; measures of features, in `features`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures import counts, regression
from td_ray.measures.disagreement import disagreement
from td_ray.measures.outputs import Examples, Outputs, one_block
from td_ray.measures.regression import DISTANCES, has_direction, value_distance
from td_ray.measures.sums import Statistic, estimate, evaluate
from td_ray.registry import MEASURES, closest, split_options

__all__ = [
    "DIFFERENT",
    "DISTANCES",
    "SIMILAR",
    "Examples",
    "Form",
    "Measure",
    "Outputs",
    "disagreement",
    "find_measure",
    "fits_stand_ins",
    "fitting",
    "has_direction",
    "one_block",
    "value_distance",
]

CLASSIFICATION, REGRESSION = "classification", "regression"
DIFFERENT, SIMILAR = "higher is more different", "higher is more similar"
Need = Literal["truth", "probabilities", "stand-ins"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """One way in which a measure compares outputs.

    Attributes:
        kind: of task, "classification" or "regression".
        range: smallest and largest possible value.
        squared: whether it is a squared distance, so that its square root is the metric.
        statistics: sums over examples for every pair of heads.
        value: of their totals, each (A, B) or with axes of length one, or (A, B, G) without each
            of G blocks; elementwise, float64, NaN where there is none.
        undefined: why a value can be NaN.
    """

    kind: str
    range: tuple[float, float]
    squared: bool
    statistics: tuple[Statistic, ...]
    value: Callable[..., Floats]
    undefined: str = ""

    def between(self, a: Outputs, b: Outputs) -> Floats:
        """(A, B) values from every head of one set to every head of another."""
        return evaluate(self.statistics, self.value, a, b)

    def with_errors(self, a: Outputs, b: Outputs) -> tuple[Floats, Floats]:
        """(A, B) values and their (A, B) standard errors; see `sums.estimate`."""
        return estimate(self.statistics, self.value, a, b)


@dataclass(frozen=True)
class Measure:
    """A measure of predictions and how to read it.

    Attributes:
        name: under which it is registered.
        direction: `DIFFERENT` or `SIMILAR`.
        source: of its formula.
        forms: by the name of the distance.
        itself: its value between equal outputs; None where that depends on them.
        is_symmetric: whether from a to b is from b to a; else both are asked for.
        needs: beside predictions: "truth", "probabilities", or "stand-ins", which are heads of its
            own (see `mimic`).
    """

    name: str
    direction: str
    source: str
    forms: Mapping[str, Form]
    itself: float | None
    is_symmetric: bool = True
    needs: frozenset[Need] = frozenset()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of task that it can compare."""
        return tuple(sorted({form.kind for form in self.forms.values()}))

    def form(self, kind: str, distance: str = "cosine") -> Form:
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
        InputError: no such measure (the message carries the closest name), or not of predictions.
    """
    measure: Any = MEASURES.get(name)
    if not isinstance(measure, Measure):
        raise InputError(f"measure '{name}' does not compare predictions")
    return measure


def fitting(names: Iterable[str], kind: str) -> list[Measure]:
    """Those of the named measures that compare predictions of a kind of task."""
    found = [MEASURES.get(split_options(name)[0]) for name in names]
    return [each for each in found if isinstance(each, Measure) and kind in each.kinds]


def fits_stand_ins(name: str) -> bool:
    """Whether the measure of that name, if there is one, fits heads of its own."""
    plain = split_options(name)[0]
    found = MEASURES.get(plain) if plain in MEASURES.names() else None
    return isinstance(found, Measure) and "stand-ins" in found.needs


def _disagreement(differ: Floats, n: Floats) -> Floats:
    return np.asarray(differ / n)


def _distance(name: str, largest: float) -> Form:
    statistics, value = regression.STATISTICS[name], regression.VALUES[name]
    constant = "a head predicts a constant, which has no direction"
    return Form(REGRESSION, (0.0, largest), True, statistics, value, constant)


MEASURES.register("td")(
    Measure(
        name="td",
        direction=DIFFERENT,
        source="Feng, Zhai, He, Wang, Dong 2020, arXiv 2007.12446",
        forms={
            "disagreement": Form(
                CLASSIFICATION, (0.0, 1.0), False, (counts.differ, counts.examples), _disagreement
            ),
            "cosine": _distance("cosine", 4.0),
            "mean": _distance("mean", 4.0),
            "none": _distance("none", math.inf),
        },
        itself=0.0,
    )
)
