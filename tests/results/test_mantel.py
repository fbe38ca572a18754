"""The comparison of two matrices: the correlation is scipy's, and the test keeps its level."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_matrices import distances, matrix
from scipy.stats import spearmanr

from td_ray import InputError, TDMatrix, compare_matrices


def test_the_correlation_is_scipy_s_over_pairs() -> None:
    a, b = matrix(distances(8, 0)), matrix(distances(8, 1))
    found = compare_matrices(a, b, permutations=20)
    assert found.spearman == pytest.approx(spearmanr(a.to_condensed(), b.to_condensed()).statistic)
    assert (found.pairs, found.permutations, found.left_out) == (28, 20, ())
    assert compare_matrices(b, a, permutations=20).spearman == pytest.approx(found.spearman)


def test_a_monotone_copy_agrees_wholly_and_a_similarity_is_turned_round() -> None:
    values = distances(9) / 10
    found = compare_matrices(matrix(values), matrix(1 - values**2, is_similarity=True))
    assert found.spearman == pytest.approx(1)
    # one of 362,880 orders does as well, and it is not among the 999 that are drawn
    assert found.p == 1 / 1000


def share_that_does_as_well(a: TDMatrix, b: TDMatrix) -> float:
    """The p of all permutations instead of some, by scipy's correlation over both directions."""
    off = ~np.eye(len(a), dtype=bool)

    def rho(order: tuple[int, ...]) -> float:
        return float(spearmanr(a.values[off], b.values[np.ix_(order, order)][off]).statistic)

    orders = list(permutations(range(len(a))))
    return float(np.mean([rho(order) >= rho(orders[0]) - 1e-12 for order in orders]))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("directed", ["neither", "first", "second", "both"])
def test_p_is_the_share_of_permutations_that_do_as_well(directed: str, ties: bool) -> None:
    draw, sides = np.random.default_rng(1), []
    for side in ("first", "second"):
        values = draw.uniform(size=(4, 4))
        values = np.floor(3 * values) if ties else values
        has_directions = directed in (side, "both")
        values = values if has_directions else np.triu(values) + np.triu(values, 1).T
        sides.append(matrix(values, is_symmetric=not has_directions))
    exact = share_that_does_as_well(*sides)
    drawn = 3000
    found = compare_matrices(*sides, permutations=drawn)
    assert 0 < exact < 1
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / drawn))
    assert found.pairs == (6 if directed == "neither" else 12)


def test_what_does_only_as_well_counts() -> None:
    """One pair is far in both: of the six orders of three, two keep it where it is."""
    values = np.array([[0, 1, 1], [1, 0, 2], [1, 2, 0]])
    found = compare_matrices(matrix(values), matrix(values), permutations=3000)
    assert found.p == pytest.approx(1 / 3, abs=0.03)


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
    turned = compare_matrices(
        matrix(distances(5)), matrix(directed, is_symmetric=False), permutations=5
    )
    assert turned.pairs == 20
    assert turned.spearman == pytest.approx(found.spearman)


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


def test_representations_without_the_key_stay_in_place() -> None:
    """Two share a value, so that half of the draws swaps them and half changes nothing."""
    values = distances(6)
    groups = ["a", "a", "b", None, None, np.nan]
    found = compare_matrices(matrix(values, groups), matrix(values), by="group")
    assert found.p == pytest.approx(1 / 2, abs=0.06)
    # a value that reads like a missing one is a value
    named = ["(none)", "(none)", "b", None, None, None]
    again = compare_matrices(matrix(values, named), matrix(values), by="group")
    assert again.p == pytest.approx(1 / 2, abs=0.06)


@pytest.mark.parametrize("groups", [[None] * 4, ["a", None, None, "b"]])
def test_to_lack_a_key_is_not_to_share_it(groups: list[Any]) -> None:
    a = matrix(distances(4), groups)
    with pytest.raises(InputError, match="no two representations share 'group'"):
        compare_matrices(a, a, by="group")


def test_frames_do_not_say_how_they_read() -> None:
    a = matrix(distances(4))
    wanted = r"wanted, as results\.matrix\(\.\.\.\) gives it, not a DataFrame"
    for sides in ((a.to_pandas(), a), (a, a.to_pandas())):
        with pytest.raises(InputError, match=wanted):
            compare_matrices(*sides)


@pytest.mark.parametrize("odd", [{"permutations": 1.5}, {"seed": -1}, {"seed": "one"}])
def test_draws_and_their_seed_are_whole_numbers(odd: dict[str, Any]) -> None:
    a = matrix(distances(4))
    ((name, value),) = odd.items()
    with pytest.raises(InputError, match=f"'{name}' is a whole number, at least .*, not {value!r}"):
        compare_matrices(a, a, **odd)
    assert compare_matrices(a, a, permutations=np.int64(3), seed=np.int64(0)).permutations == 3


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
