"""Companions of td: each by its definition, the identities between them, and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_heads import DEFINITIONS, by_definition, examples_of, made_up

from td_ray.measures import Examples, Outputs, find_measure, fits_stand_ins, fitting, one_block
from td_ray.registry import MEASURES

Array = np.ndarray[Any, Any]

DIRECTED = ["negative_flip_rate", "positive_flip_rate", "backward_compatibility"]


def between(name: str, a: Outputs, b: Outputs) -> Array:
    return find_measure(name).form("classification").between(a, b)


def test_all_measures_are_defined_here_and_registered_there() -> None:
    # measures of features, and of stand-ins, have tests of their own
    names = [name for name in MEASURES.names() if not fits_stand_ins(name)]
    ours = {each.name for each in fitting(names, "classification")}
    assert ours == set(DEFINITIONS)
    assert [each.name for each in fitting(sorted(ours), "regression")] == ["td"]


@pytest.mark.parametrize("name", DEFINITIONS)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 90)),
    classes=st.sampled_from([2, 3, 12, 300]),
    skill=st.sampled_from([-3.0, 1.0, 12.0]),
    blocks=st.sampled_from([1, 4, 40]),
    seed=st.integers(0, 10**6),
)
def test_every_measure_is_its_definition(
    name: str, sizes: tuple[int, int, int], classes: int, skill: float, blocks: int, seed: int
) -> None:
    truth = np.random.default_rng(seed).integers(classes, size=sizes[2]) ** 2 // classes
    examples = examples_of(truth, classes, blocks)
    a, b = made_up(sizes[0], examples, seed + 1, skill), made_up(sizes[1], examples, seed + 2, 1.0)
    form = find_measure(name).form("classification")
    for one, other in ((a, b), (b, a), (a, a)):
        expected = by_definition(name, one, other)
        found, errors = form.with_errors(one, other)
        np.testing.assert_allclose(found, expected, atol=2e-7)
        assert np.array_equal(found, form.between(one, other), equal_nan=True)
        assert errors.shape == found.shape
        assert not (np.isnan(found) & ~np.isnan(errors)).any()
        assert not np.isnan(found).any() or form.undefined
        low, high = form.range
        assert ((found >= low) & (found <= high + 1e-6) | np.isnan(found)).all()
    if find_measure(name).is_symmetric:
        np.testing.assert_allclose(form.between(a, b), form.between(b, a).T, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_identities(classes: int) -> None:
    truth = np.arange(500) % classes
    examples = examples_of(truth, classes)
    a, b = made_up(6, examples, 0), made_up(7, examples, 1, skill=0.5)
    found = {name: between(name, a, b) for name in DEFINITIONS}
    td, bounds = found["td"], (found["td_lower_bound"], found["td_upper_bound"])
    assert (bounds[0] <= td + 1e-12).all()
    assert (td <= bounds[1] + 1e-12).all()
    one_right = found["negative_flip_rate"] + found["positive_flip_rate"]
    np.testing.assert_allclose(td, one_right + found["both_wrong_different"])
    np.testing.assert_allclose(found["td_macro"], td)  # classes are of one size
    accuracy = (a.predicted == truth).mean(1)[:, None]
    kept = 1 - found["negative_flip_rate"] / accuracy
    np.testing.assert_allclose(found["backward_compatibility"], kept)
    np.testing.assert_allclose(found["oracle_accuracy"], accuracy + found["positive_flip_rate"])
    for flips, back in (DIRECTED[:2], DIRECTED[1::-1]):
        np.testing.assert_allclose(found[flips], between(back, b, a).T)
    if classes == 2:
        np.testing.assert_allclose(found["both_wrong_different"], 0, atol=1e-15)
    own = {name: np.diagonal(between(name, a, a)) for name in DEFINITIONS}
    for name, value in own.items():
        expected = 1.0 if name in ("cohen_kappa", "error_consistency", DIRECTED[2]) else 0.0
        if name in ("td_upper_bound", "oracle_accuracy"):
            continue
        np.testing.assert_allclose(value, expected, atol=1e-12, err_msg=name)


def test_kappa_and_divergence_are_those_of_scientific_libraries() -> None:
    from scipy.spatial.distance import jensenshannon
    from sklearn.metrics import cohen_kappa_score

    examples = examples_of(np.arange(300) % 7 % 4, 4)
    a, b = made_up(3, examples, 0), made_up(2, examples, 1)
    assert a.probabilities is not None
    assert b.probabilities is not None
    for i, j in np.ndindex(3, 2):
        kappa = cohen_kappa_score(a.predicted[i], b.predicted[j])
        assert between("cohen_kappa", a, b)[i, j] == pytest.approx(kappa, abs=1e-12)
        right = (x.predicted[k] == examples.truth for x, k in ((a, i), (b, j)))
        consistency = cohen_kappa_score(*right)
        assert between("error_consistency", a, b)[i, j] == pytest.approx(consistency, abs=1e-12)
        p, q = a.probabilities[i].astype(float), b.probabilities[j].astype(float)
        divergence = (jensenshannon(p, q, axis=1) ** 2).mean()
        assert between("js_divergence", a, b)[i, j] == pytest.approx(divergence, abs=1e-7)


def test_divergence_of_certain_and_of_nearly_equal_predictions() -> None:
    examples = Examples(one_block(3), np.zeros(3, dtype=int), 2)
    certain = np.array([[[1, 0]] * 3, [[0, 1]] * 3], dtype=np.float32)
    heads = Outputs(certain.argmax(-1), examples, certain)
    np.testing.assert_allclose(
        between("js_divergence", heads, heads), [[0, np.log(2)], [np.log(2), 0]], atol=1e-15
    )
    near = np.array([[[0.5, 0.5]] * 3, [[0.5 + 2**-14, 0.5 - 2**-14]] * 3], dtype=np.float32)
    heads = Outputs(near.argmax(-1), examples, near)
    # JS of 1/2 + d and 1/2 is d^2 / 2 in its leading term.
    assert between("js_divergence", heads, heads)[0, 1] == pytest.approx(2**-29, rel=1e-5)


def test_equal_means_of_probabilities_go_to_the_first_class() -> None:
    """Two heads that are certain of different classes: right half of the time, not always."""
    examples = Examples(one_block(4), np.array([0, 1, 0, 1]), 2)
    certain = np.array([[[1, 0]] * 4, [[0, 1]] * 4], dtype=np.float32)
    heads = Outputs(certain.argmax(-1), examples, certain)
    np.testing.assert_array_equal(between("ensemble_gain", heads, heads), np.zeros((2, 2)))


def test_independent_uniform_errors_have_a_closed_form() -> None:
    random, n, classes = np.random.default_rng(0), 400_000, 5
    truth = random.integers(classes, size=n)
    shift = np.array([random.integers(1, classes, size=n) for _ in range(2)])
    wrong = random.random((2, n)) < np.array([[0.1], [0.3]])
    codes = (truth + np.where(wrong, shift, 0)) % classes
    examples = examples_of(truth, classes)
    a, b = (Outputs(codes[k : k + 1], examples) for k in range(2))
    e, f, deviation = 0.1, 0.3, 5 * 0.5 / np.sqrt(n)
    expected = {
        "td": 1 - (1 - e) * (1 - f) - e * f / (classes - 1),
        "both_wrong_different": e * f * (classes - 2) / (classes - 1),
        "negative_flip_rate": (1 - e) * f,
        "positive_flip_rate": e * (1 - f),
        "oracle_accuracy": 1 - e * f,
        "error_consistency": 0.0,
        "backward_compatibility": 1 - f,
    }
    for name, value in expected.items():
        scale = 1 / (e + f - 2 * e * f) if name == "error_consistency" else 1.2
        assert between(name, a, b)[0, 0] == pytest.approx(value, abs=scale * deviation), name


def test_kappa_of_independent_predictions_is_zero() -> None:
    random, shares = np.random.default_rng(1), np.array([0.6, 0.3, 0.1])
    codes = random.choice(3, p=shares, size=(2, 200_000))
    heads = Outputs(codes, examples_of(np.zeros(200_000, dtype=int), 3))
    assert between("cohen_kappa", heads, heads)[0, 1] == pytest.approx(0, abs=0.01)
    by_chance = 1 - np.square(shares).sum()
    assert between("td", heads, heads)[0, 1] == pytest.approx(by_chance, abs=0.006)


def test_a_rare_class_counts_as_much_in_the_mean_over_classes() -> None:
    truth = np.array([0] * 98 + [1] * 2)
    a, b = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    b[98] = 1
    heads = Outputs(np.stack([a, b]), examples_of(truth, 2))
    assert between("td", heads, heads)[0, 1] == pytest.approx(0.01)
    assert between("td_macro", heads, heads)[0, 1] == pytest.approx(0.25)


def test_what_has_no_value_says_why() -> None:
    truth = np.arange(10) % 2
    right = Outputs(np.stack([truth, truth]), examples_of(truth, 2))
    wrong = Outputs(np.stack([1 - truth] * 2), examples_of(truth, 2))
    constant = Outputs(np.zeros((2, 10), dtype=int), examples_of(truth, 2))
    for name, heads, words in (
        ("td_min_max", right, "bounds are equal"),
        ("td_over_errors", right, "right on every example"),
        ("error_consistency", wrong, "both on none"),
        ("backward_compatibility", wrong, "right on no example"),
        ("cohen_kappa", constant, "one and the same class"),
    ):
        form = find_measure(name).form("classification")
        assert np.isnan(form.between(heads, heads)).all(), name
        assert words in form.undefined
    directed = [m.name for m in fitting(DEFINITIONS, "classification") if not m.is_symmetric]
    assert sorted(directed) == sorted(DIRECTED)


def test_slices_of_outputs_keep_what_was_made() -> None:
    examples = examples_of(np.arange(200) % 3, 3)
    heads = made_up(9, examples, 0)
    whole = between("cohen_kappa", heads, heads), between("negative_flip_rate", heads, heads)
    assert "right_planes" in vars(heads)
    some = heads[2:5]
    assert np.shares_memory(some.right_planes, heads.right_planes)
    assert len(some) == 3
    for found, name in zip(whole, ("cohen_kappa", "negative_flip_rate"), strict=True):
        np.testing.assert_array_equal(between(name, some, heads), found[2:5])
