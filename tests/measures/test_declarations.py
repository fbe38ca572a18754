"""What every measure says of itself, written out a second time, and that it does what it says.

Others take their words for it: matrices turn similarities round, tests and trees take roots of
what is squared, and the diagonal of a matrix is what a measure says of equal outputs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from made_up_heads import examples_of, made_up

from td_ray.arrays.feature_comparison import pairwise_measure
from td_ray.measures import Examples, Measure, Outputs, find_measure, one_block
from td_ray.measures.features import FeatureMeasure, find_feature_measure
from td_ray.registry import MEASURES

DIFFERENT, SIMILAR = "higher is more different", "higher is more similar"


class Declared(NamedTuple):
    direction: str
    range: tuple[float, float]
    itself: float | None
    is_symmetric: bool = True


# On classes; each range is what the formula can give, and `itself` what it gives for two that are
# the same: None where that is a matter of their accuracy.
OF_PREDICTIONS = {
    "td": Declared(DIFFERENT, (0, 1), 0),
    "td_macro": Declared(DIFFERENT, (0, 1), 0),
    "td_lower_bound": Declared(DIFFERENT, (0, 1), 0),
    "td_upper_bound": Declared(DIFFERENT, (0, 1), None),
    "td_min_max": Declared(DIFFERENT, (0, 1), 0),
    "td_over_errors": Declared(DIFFERENT, (0, 1), 0),
    "cohen_kappa": Declared(SIMILAR, (-1, 1), 1),
    "both_wrong_different": Declared(DIFFERENT, (0, 1), 0),
    "error_consistency": Declared(SIMILAR, (-1, 1), 1),
    "oracle_accuracy": Declared(DIFFERENT, (0, 1), None),
    "negative_flip_rate": Declared(DIFFERENT, (0, 1), 0, is_symmetric=False),
    "positive_flip_rate": Declared(DIFFERENT, (0, 1), 0, is_symmetric=False),
    "backward_compatibility": Declared(SIMILAR, (0, 1), 1, is_symmetric=False),
    "js_divergence": Declared(DIFFERENT, (0, math.log(2)), 0),
    "ensemble_gain": Declared(DIFFERENT, (-1, 1), 0),
    # What a head loses by being fitted to itself depends on the head.
    "mimic": Declared(DIFFERENT, (0, 1), None, is_symmetric=False),
}
# On values: the two that are free of units are at most 4, for opposite predictions.
OF_VALUES = {"cosine": (0, 4), "mean": (0, 4), "none": (0, math.inf)}
OF_FEATURES = {
    "cka": Declared(SIMILAR, (0, 1), 1),
    "cka_debiased": Declared(SIMILAR, (-1, 1), 1),
    "cca": Declared(SIMILAR, (0, 1), 1),
    "procrustes": Declared(DIFFERENT, (0, 2), 0),
    "gulp": Declared(DIFFERENT, (0, math.inf), 0),
    "rsa": Declared(SIMILAR, (-1, 1), 1),
    "knn": Declared(SIMILAR, (0, 1), 1),
}
SQUARED_OF_FEATURES = {"procrustes", "gulp"}
# Heads of one accuracy have the same bounds, however alike they are.
BOUNDS = {"td_lower_bound", "td_upper_bound"}


def test_every_registered_measure_is_written_out_here() -> None:
    assert set(MEASURES.names()) == {*OF_PREDICTIONS, *OF_FEATURES}
    for name in MEASURES.names():
        kind = Measure if name in OF_PREDICTIONS else FeatureMeasure
        assert isinstance(MEASURES.get(name), kind), name


@pytest.mark.parametrize("name", OF_PREDICTIONS)
def test_measures_of_predictions_declare_what_is_written_here(name: str) -> None:
    measure = find_measure(name)
    form = measure.form("classification")
    declared = (measure.direction, form.range, measure.itself, measure.is_symmetric)
    assert declared == OF_PREDICTIONS[name]
    assert not form.squared  # a share is a distance as it is


@pytest.mark.parametrize("name", ["td", "mimic"])
def test_distances_of_values_are_squared(name: str) -> None:
    measure = find_measure(name)
    assert measure.kinds == ("classification", "regression")
    for distance, limits in OF_VALUES.items():
        form = measure.form("regression", distance)
        assert (form.range, form.squared) == (limits, True)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_measures_of_features_declare_what_is_written_here(name: str) -> None:
    measure = find_feature_measure(name)
    assert (measure.direction, measure.range, measure.itself) == OF_FEATURES[name][:3]
    assert measure.squared == (name in SQUARED_OF_FEATURES)


def test_the_penalty_of_correlations_leaves_no_value_for_equal_features() -> None:
    assert find_feature_measure("cca", {"ridge": 0.1}).itself is None


def heads_of_one_skill(classes: int = 4) -> tuple[Outputs, Outputs, Outputs]:
    """A head, one that gives a tenth of another's outputs, and that other one."""
    examples = examples_of(np.arange(4000) % classes, classes)
    one, other = made_up(1, examples, 0, skill=1.0), made_up(1, examples, 1, skill=1.0)
    taken = np.random.default_rng(2).random(4000) < 0.1
    assert one.probabilities is not None
    assert other.probabilities is not None
    near = Outputs(
        np.where(taken, other.predicted, one.predicted),
        examples,
        np.where(taken[:, None], other.probabilities, one.probabilities),
    )
    return one, near, other


@pytest.mark.parametrize("name", [name for name in OF_PREDICTIONS if name not in BOUNDS])
def test_the_direction_is_that_of_heads_that_have_less_in_common(name: str) -> None:
    form = find_measure(name).form("classification")
    one, near, other = heads_of_one_skill()
    close, far = (form.between(one, each)[0, 0] for each in (near, other))
    assert close < far if OF_PREDICTIONS[name].direction == DIFFERENT else close > far
    assert abs(close - far) > 0.02


@pytest.mark.parametrize("name", [name for name in OF_PREDICTIONS if name != "mimic"])
def test_equal_outputs_have_the_value_that_is_declared(name: str) -> None:
    """None is declared for what the outputs decide: here, by how often they are right."""
    form, itself = find_measure(name).form("classification"), OF_PREDICTIONS[name].itself
    examples = examples_of(np.arange(300) % 3, 3)
    values = []
    for seed, skill in enumerate((0.0, 1.0, 2.5)):
        one, again = (made_up(1, examples, seed, skill) for _ in range(2))
        values.append(form.between(one, again)[0, 0])
    if itself is not None:
        np.testing.assert_allclose(values, itself, atol=1e-7)
    else:
        assert np.ptp(values) > 0.3


@pytest.mark.parametrize("distance", OF_VALUES)
def test_distances_of_values_reach_their_ends_and_are_squares(distance: str) -> None:
    form = find_measure("td").form("regression", distance)
    u, v = np.random.default_rng(0).standard_normal((2, 1, 50))
    examples = Examples(one_block(50))

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return float(form.between(Outputs(a, examples), Outputs(b, examples))[0, 0])

    assert between(u, u.copy()) == 0 == find_measure("td").itself
    unit = 100.0 if distance == "none" else 1.0
    assert between(10 * u, 10 * v) == pytest.approx(unit * between(u, v))
    assert between(u, -u) == pytest.approx(4 * (u @ u.T / 50).item() if distance == "none" else 4)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_the_direction_is_that_of_features_that_have_less_in_common(name: str) -> None:
    random = np.random.default_rng(0)
    one, other = random.standard_normal((2, 200, 6))
    table = pairwise_measure({"one": one, "near": one + 0.3 * other, "other": other}, name)
    close, far = table.loc["one", "near"], table.loc["one", "other"]
    declared = OF_FEATURES[name]
    assert close < far if declared.direction == DIFFERENT else close > far
    assert table.loc["other", "one"] == far
    np.testing.assert_allclose(np.diag(table), declared.itself, atol=1e-9)
    low, high = declared.range
    assert ((table >= low) & (table <= high)).all(axis=None)
