"""The comparison of two matrices: the correlation is scipy's, and the test keeps its level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up_matrices import distances, matrix
from scipy.stats import spearmanr

from td_ray import InputError, compare_matrices


def test_the_correlation_is_scipy_s_over_pairs() -> None:
    a, b = matrix(distances(8, 0)), matrix(distances(8, 1))
    found = compare_matrices(a, b, permutations=20)
    assert found.spearman == pytest.approx(spearmanr(a.to_condensed(), b.to_condensed()).statistic)
    assert (found.pairs, found.permutations, found.left_out) == (28, 20, ())
    assert compare_matrices(b, a, permutations=20).spearman == pytest.approx(found.spearman)


def test_a_monotone_copy_agrees_wholly_and_a_similarity_is_turned_round() -> None:
    values = distances(7) / 10
    found = compare_matrices(matrix(values), matrix(1 - values**2, is_similarity=True))
    assert found.spearman == pytest.approx(1)
    assert found.p == pytest.approx(1 / 1000, abs=2e-3)


def test_names_are_matched_whatever_their_order() -> None:
    a = matrix(distances(6))
    assert compare_matrices(a, a.take([5, 3, 1, 0, 2, 4]), permutations=5).spearman == 1


def test_representations_that_lack_pairs_are_left_out() -> None:
    values = distances(6)
    values[1, 2] = values[2, 1] = values[1, 3] = values[3, 1] = np.nan
    found = compare_matrices(matrix(values), matrix(distances(6, 1)), permutations=5)
    assert (found.left_out, found.pairs) == (("n1",), 10)


def test_a_measure_with_directions_counts_both() -> None:
    directed = np.random.default_rng(0).uniform(size=(5, 5))
    found = compare_matrices(
        matrix(directed, is_symmetric=False), matrix(distances(5)), permutations=5
    )
    off = ~np.eye(5, dtype=bool)
    assert found.pairs == 20
    assert found.spearman == pytest.approx(spearmanr(directed[off], distances(5)[off]).statistic)


def p_values(by: str | None, *, share_groups: bool) -> list[float]:
    """P for 200 pairs of matrices that have nothing but groups, or nothing at all, in common."""
    found = []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        groups = np.repeat(["a", "b", "c"], 5)
        apart = (groups[:, None] != groups[None, :]).astype(float)
        drawn = []
        for _ in range(2):
            noise = draw.uniform(size=(15, 15))
            drawn.append(matrix(share_groups * apart + noise + noise.T, list(groups)))
        found.append(compare_matrices(*drawn, by=by, permutations=99, seed=seed).p)
    return found


def rejected(p: list[float]) -> float:
    return float((pd.Series(p) <= 0.05).mean())


def test_the_test_keeps_its_level() -> None:
    assert rejected(p_values(None, share_groups=False)) <= 0.1


def test_shared_groups_need_permutations_within_groups() -> None:
    assert rejected(p_values(None, share_groups=True)) > 0.9
    assert rejected(p_values("group", share_groups=True)) <= 0.1


def test_what_cannot_be_compared_is_refused() -> None:
    a = matrix(distances(4))
    with pytest.raises(InputError, match=r"same representations: \['n3'\]"):
        compare_matrices(a, a.take([0, 1, 2]))
    with pytest.raises(InputError, match="3 are needed"):
        compare_matrices(a.take([0, 1]), a.take([0, 1]))
    with pytest.raises(InputError, match="at least 1, not 0"):
        compare_matrices(a, a, permutations=0)
    alone = matrix(distances(4), ["a", "b", "c", "d"])
    with pytest.raises(InputError, match="no two representations share 'group'"):
        compare_matrices(alone, alone, by="group")
    with pytest.raises(InputError, match="same value for all pairs"):
        compare_matrices(a, matrix(np.ones((4, 4)) - np.eye(4)))
