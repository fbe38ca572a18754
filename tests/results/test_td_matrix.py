"""The matrix: to pandas, to scipy, by groups, means over tasks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_matrices import distances, matrix
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from td_ray import InputError, PartialMatrixWarning, mean_matrix


def test_the_condensed_vector_is_scipy_s() -> None:
    values = distances(6)
    found = matrix(values).to_condensed()
    np.testing.assert_array_equal(found, squareform(values))
    assert linkage(found).shape == (5, 4)


def test_similarities_are_turned_round_and_directions_averaged() -> None:
    values = distances(5) / 10
    np.testing.assert_allclose(
        matrix(1 - values, is_similarity=True).to_condensed(), squareform(values)
    )
    directed = values.copy()
    directed[np.triu_indices(5, 1)] += 0.2
    found = matrix(directed, is_symmetric=False)
    np.testing.assert_allclose(found.to_condensed(), squareform(values) + 0.1)
    assert len(found.pairs[0]) == 20


def test_missing_pairs_are_counted_and_those_who_lack_them_can_go() -> None:
    values = distances(6)
    values[1, 2] = values[2, 1] = values[1, 4] = values[4, 1] = np.nan
    partial = matrix(values)
    assert partial.n_missing == 2
    with pytest.warns(PartialMatrixWarning, match="2 of 15 pairs"):
        assert partial.to_pandas().attrs["missing"] == 2
    values[3] = values[:, 3] = np.nan
    with pytest.warns(PartialMatrixWarning, match=r"7 of 15 pairs .* among them all of 'n3': not"):
        matrix(values).to_pandas()
    with pytest.raises(InputError, match=r"2 pairs .* \.complete\(\)"):
        partial.to_condensed()
    assert partial.complete().names == ["n0", "n2", "n3", "n4", "n5"]
    assert sorted(partial.clustering_order()) == list(range(6))


def test_clustering_puts_the_alike_side_by_side() -> None:
    side = np.array([0, 1, 0, 1, 0, 1])
    values = np.where(side[:, None] == side[None, :], 0.1, 0.9)
    np.fill_diagonal(values, 0)
    order = matrix(values).clustering_order()
    assert side[order].tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("shift", [1, 20])
def test_clustering_does_not_mind_differences_below_zero(shift: float) -> None:
    """As `excess` and `ensemble_gain` have them; only how much larger one is than others counts."""
    values = distances(9)
    below = np.where(np.eye(9), 0, values - shift)
    assert (below < 0).any()
    order = matrix(values).clustering_order()
    np.testing.assert_array_equal(matrix(below, low=-np.inf).clustering_order(), order)
    below[0, 1] = below[1, 0] = np.nan
    assert sorted(matrix(below).clustering_order()) == list(range(9))


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9), st.integers(0, 5), st.booleans())
def test_group_means_are_those_of_a_loop(groups: list[str], seed: int, directed: bool) -> None:
    size = len(groups)
    values = np.random.default_rng(seed).uniform(size=(size, size))
    values = values if directed else values + values.T
    values[0, -1] = np.nan
    if not directed:
        values[-1, 0] = np.nan
    found = matrix(values, groups, is_symmetric=not directed).group_means("group")
    assert list(found.index) == list(dict.fromkeys(groups))
    for one, other in product(found.index, repeat=2):
        each = [
            values[i, j]
            for i, j in product(range(size), repeat=2)
            if i != j and (groups[i], groups[j]) == (one, other) and not np.isnan(values[i, j])
        ]
        assert found.loc[one, other] == pytest.approx(
            np.mean(each) if each else np.nan, nan_ok=True
        )


def test_unknown_groups_are_named() -> None:
    with pytest.raises(InputError, match=r"no model has metadata 'grup'.*group"):
        matrix(distances(3)).group_means("grup")


def test_the_mean_over_tasks_has_equal_weights_or_those_given() -> None:
    a, b = matrix(distances(4, 0)), matrix(distances(4, 1))
    np.testing.assert_allclose(mean_matrix([a, b]).values, (a.values + b.values) / 2)
    np.testing.assert_allclose(mean_matrix([a, b], [3, 1]).values, (3 * a.values + b.values) / 4)
    noisier = replace(b, floors=5 * b.floors)
    np.testing.assert_allclose(mean_matrix([a, noisier]).floors, 3 * a.floors)
    np.testing.assert_allclose(mean_matrix([a, noisier], [3, 1]).floors, 2 * a.floors)
    given = (each for each in (a, b))
    np.testing.assert_array_equal(mean_matrix(given).values, mean_matrix([a, b]).values)
    hole = b.values.copy()
    hole[0, 1] = hole[1, 0] = np.nan
    assert mean_matrix([a, replace(b, values=hole)]).n_missing == 1


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, np.inf], ["x", "y"], {"x": 1}, 2])
def test_weights_that_do_not_fit_are_refused(weights: Any) -> None:
    a = matrix(distances(3))
    with pytest.raises(InputError, match="'weights' is one number for each of 2"):
        mean_matrix([a, a], weights)


def test_means_are_of_one_thing() -> None:
    a = matrix(distances(3))
    with pytest.raises(InputError, match="no matrix"):
        mean_matrix([])
    with pytest.raises(InputError, match=r"a TDMatrix is wanted, .* not a DataFrame"):
        mean_matrix([a, a.to_pandas()])
    for single in (a, a.to_pandas()):
        with pytest.raises(InputError, match=f"list of matrices, not of a {type(single).__name__}"):
            mean_matrix(single)
    with pytest.raises(InputError, match=r"same representations: \['n2'\]"):
        mean_matrix([a, a.take([0, 1])])
    with pytest.raises(InputError, match="excess of td"):
        mean_matrix([a, replace(a, scale=replace(a.scale, value="excess"))])


def test_a_matrix_shows_what_it_is() -> None:
    assert "value of td, 3 representations" in repr(matrix(distances(3)))
