"""Companions of td for classification: how errors bound it, what a release changes, what two add.

For two models with accuracies 1 - e and 1 - e', where X is the share of examples that exactly one
of them gets right:

    td_macro              mean over true classes c of P(differ | y = c)
    td_lower_bound        |e - e'|
    td_upper_bound        min(1, e + e'), and min(e + e', 2 - e - e') of two classes
    td_min_max            (td - lower) / (upper - lower)
    td_over_errors        td / (e + e'), which is 1 where no example is wrong for both
    cohen_kappa           1 - td / (1 - sum_c p_c p'_c), p_c how often c is predicted
    both_wrong_different  P(both wrong, and they differ) = td - X
    js_divergence         mean Jensen-Shannon divergence of the probabilities, natural logarithm
    error_consistency     1 - X / (e + e' - 2 e e'): kappa of being right
    oracle_accuracy       1 - P(both wrong)
    ensemble_gain         accuracy of the mean of the probabilities, less the better model's

and, where the second replaces the first (not symmetric):

    negative_flip_rate      P(a right, b wrong)
    positive_flip_rate      P(a wrong, b right)
    backward_compatibility  P(b right | a right) = 1 - negative_flip_rate / (1 - e)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from td_ray.measures import CLASSIFICATION, DIFFERENT, SIMILAR, Form, Measure, Need, counts
from td_ray.measures.probabilities import ensemble_right, jensen_shannon
from td_ray.measures.sums import Statistic
from td_ray.registry import MEASURES

Floats = NDArray[np.float64]

SHARE = (0.0, 1.0)
RIGHT: tuple[Statistic, ...] = (counts.right_a, counts.right_b)


def _register(
    name: str,
    value: Callable[..., Floats],
    *statistics: Statistic,
    source: str,
    range: tuple[float, float] = SHARE,
    direction: str = DIFFERENT,
    itself: float | None = 0.0,
    is_symmetric: bool = True,
    needs: tuple[Need, ...] = ("truth",),
    undefined: str = "",
) -> None:
    """Register a measure whose value is a function of counts and of the number of examples."""
    form = Form(CLASSIFICATION, range, False, (*statistics, counts.examples), value, undefined)
    forms = {"classification": form}
    measure = Measure(name, direction, source, forms, itself, is_symmetric, frozenset(needs))
    MEASURES.register(name)(measure)


def _ratio(over: Floats, under: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    nothing = under == 0
    return np.asarray(np.where(nothing, np.nan, over / np.where(nothing, 1.0, under)))


def _share(count: Floats, n: Floats) -> Floats:
    return np.asarray(count / n)


def _macro(mean: Floats, n: Floats) -> Floats:
    return mean


def _lower(right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    return np.asarray(np.abs(right_a - right_b) / n)


def _upper(right_a: Floats, right_b: Floats, classes: Floats, n: Floats) -> Floats:
    return np.asarray(_most_that_differ(right_a, right_b, classes, n) / n)


def _most_that_differ(right_a: Floats, right_b: Floats, classes: Floats, n: Floats) -> Floats:
    """Of two classes, two that are wrong agree."""
    right, wrong = right_a + right_b, 2 * n - right_a - right_b
    return np.asarray(np.minimum(wrong, np.where(classes == 2, right, n)))


def _min_max(
    differ: Floats, right_a: Floats, right_b: Floats, classes: Floats, n: Floats
) -> Floats:
    least, most = np.abs(right_a - right_b), _most_that_differ(right_a, right_b, classes, n)
    return _ratio(differ - least, most - least)


def _over_errors(differ: Floats, right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    return _ratio(differ, 2 * n - right_a - right_b)


def _cohen(differ: Floats, chance: Floats, n: Floats) -> Floats:
    return 1 - _ratio(differ * n, n * n - chance)


def _both_wrong_different(differ: Floats, one_right: Floats, n: Floats) -> Floats:
    return np.asarray((differ - one_right) / n)


def _error_consistency(one_right: Floats, right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    by_chance = right_a * (n - right_b) + right_b * (n - right_a)
    return 1 - _ratio(one_right * n, by_chance)


def _oracle(one_right: Floats, right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    return np.asarray((right_a + right_b + one_right) / (2 * n))


def _gain(together: Floats, right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    return np.asarray((together - np.maximum(right_a, right_b)) / n)


def _negative(one_right: Floats, right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    return np.asarray((one_right + right_a - right_b) / (2 * n))


def _positive(one_right: Floats, right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    return _negative(one_right, right_b, right_a, n)


def _compatibility(one_right: Floats, right_a: Floats, right_b: Floats, n: Floats) -> Floats:
    return _ratio(right_a + right_b - one_right, 2 * right_a)


BOUNDS = "Klabunde, Lemmerich 2022, arXiv 2205.10070"
DIVERSITY = "Kuncheva, Whitaker 2003, Machine Learning 51"

_register(
    "td_macro",
    _macro,
    counts.differ_by_class,
    source="td of Feng et al. 2020, arXiv 2007.12446, averaged over true classes",
)
_register("td_lower_bound", _lower, *RIGHT, source=BOUNDS)
_register("td_upper_bound", _upper, *RIGHT, counts.classes, source=BOUNDS, itself=None)
_register(
    "td_min_max",
    _min_max,
    counts.differ,
    *RIGHT,
    counts.classes,
    source=BOUNDS,
    undefined="the errors leave td a single value, so that its bounds are equal",
)
_register(
    "td_over_errors",
    _over_errors,
    counts.differ,
    *RIGHT,
    source="Fort, Hu, Lakshminarayanan 2019, arXiv 1912.02757, with both errors",
    undefined="both heads are right on every example",
)
_register(
    "cohen_kappa",
    _cohen,
    counts.differ,
    counts.chance,
    itself=1.0,
    source="Cohen 1960, Educational and Psychological Measurement 20",
    range=(-1.0, 1.0),
    direction=SIMILAR,
    needs=(),
    undefined="both heads predict one and the same class on every example",
)
_register(
    "both_wrong_different",
    _both_wrong_different,
    counts.differ,
    counts.one_right,
    source=DIVERSITY,
)
_register(
    "error_consistency",
    _error_consistency,
    counts.one_right,
    *RIGHT,
    itself=1.0,
    source="Geirhos, Meding, Wichmann 2020, arXiv 2006.16736",
    range=(-1.0, 1.0),
    direction=SIMILAR,
    undefined="both heads are right on every example, or both on none",
)
_register(
    "oracle_accuracy",
    _oracle,
    counts.one_right,
    *RIGHT,
    itself=None,
    source=DIVERSITY,
)
_register(
    "negative_flip_rate",
    _negative,
    counts.one_right,
    *RIGHT,
    source="Yan et al. 2021, arXiv 2011.09161",
    is_symmetric=False,
)
_register(
    "positive_flip_rate",
    _positive,
    counts.one_right,
    *RIGHT,
    source="Yan et al. 2021, arXiv 2011.09161",
    is_symmetric=False,
)
_register(
    "backward_compatibility",
    _compatibility,
    counts.one_right,
    *RIGHT,
    itself=1.0,
    source="Srivastava, Nushi, Kamar, Shah, Horvitz 2020, arXiv 2008.04572",
    direction=SIMILAR,
    is_symmetric=False,
    undefined="the first head is right on no example",
)
_register(
    "js_divergence",
    _share,
    jensen_shannon,
    source="Lin 1991, IEEE Transactions on Information Theory 37",
    range=(0.0, math.log(2)),
    needs=("probabilities",),
)
_register(
    "ensemble_gain",
    _gain,
    ensemble_right,
    *RIGHT,
    source="accuracy of a mean of probabilities, less the better model's",
    range=(-1.0, 1.0),
    needs=("truth", "probabilities"),
)
