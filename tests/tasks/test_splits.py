"""Splits and halves: what they must be, whatever the samples are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.spec import Split
from td_ray.tasks import halves, validation_part
from td_ray.tasks.splits import cut


@st.composite
def samples(draw: st.DrawFn) -> tuple[NDArray[np.str_], NDArray[np.str_] | None]:
    """Ids with strata, or without."""
    ids = draw(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=60, unique=True))
    n = len(ids)
    strata = draw(st.none() | st.lists(st.sampled_from("abcd"), min_size=n, max_size=n))
    ids = [f"{number}{text}" for number, text in enumerate(ids)]
    return np.array(ids), None if strata is None else np.array(strata)


def draw_of(
    ids: NDArray[np.str_],
    columns: dict[str, NDArray[Any]] | None = None,
    strata: NDArray[Any] | None = None,
    **split: Any,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return cut(ids, columns or {}, strata, Split(**split), "d")


@given(samples(), st.integers(0, 5))
def test_halves_are_complementary_and_stratified(
    drawn: tuple[NDArray[np.str_], NDArray[np.str_] | None], seed: int
) -> None:
    ids, strata = drawn
    a, b = halves(ids, strata, "digest", seed)
    assert (a ^ b).all()
    assert abs(int(a.sum()) - int(b.sum())) <= 1
    for value in np.unique(strata) if strata is not None else []:
        rows = strata == value
        assert abs(int(a[rows].sum()) - int(b[rows].sum())) <= 1


@given(samples(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_membership_does_not_depend_on_the_order_of_rows(
    drawn: tuple[NDArray[np.str_], NDArray[np.str_] | None], seed: int, random: Any
) -> None:
    ids, strata = drawn
    order = np.array(random.sample(range(len(ids)), len(ids)))
    shuffled = None if strata is None else strata[order]
    for first, second in (
        (halves(ids, strata, "x", seed)[0], halves(ids[order], shuffled, "x", seed)[0]),
        (validation_part(ids, strata, "x"), validation_part(ids[order], shuffled, "x")),
    ):
        assert set(ids[first]) == set(ids[order][second])


@given(samples(), st.floats(0.01, 0.99))
def test_a_drawn_share_is_stratified_and_exact(
    drawn: tuple[NDArray[np.str_], NDArray[np.str_] | None], share: float
) -> None:
    ids, strata = drawn
    try:
        training, evaluation = draw_of(ids, strata=strata, test=share)
    except InputError:
        return  # too few samples
    assert (training ^ evaluation).all()
    kept = 0 if strata is None else len(np.unique(strata))
    assert -kept - 1 <= evaluation.sum() - share * len(ids) <= 1
    for value in np.unique(strata) if strata is not None else []:
        rows = strata == value
        assert abs(evaluation[rows].sum() - share * rows.sum()) <= 1
        assert training[rows].any()


def test_a_share_of_small_classes_is_a_share_of_all() -> None:
    ids, strata = np.arange(500).astype(str), np.repeat(np.arange(100), 5)
    _, evaluation = draw_of(ids, strata=strata, test=0.3)
    assert evaluation.sum() == 150  # and not 200: every class alone rounds 1.5 up
    assert set(np.bincount(strata[evaluation])) == {1, 2}
    ids, strata = np.arange(200).astype(str), np.repeat(np.arange(100), 2)
    assert validation_part(ids, strata, "x").sum() == 40  # and not 0


def test_a_class_of_one_stays_in_training() -> None:
    ids, strata = np.arange(101).astype(str), np.array(["one"] + ["many"] * 100)
    for seed in range(20):
        training, _ = draw_of(ids, strata=strata, test=0.9, seed=seed)
        assert training[0]


@given(samples())
def test_the_validation_part_is_about_a_fifth(
    drawn: tuple[NDArray[np.str_], NDArray[np.str_] | None],
) -> None:
    ids, strata = drawn
    chosen = validation_part(ids, strata, "digest")
    assert chosen.sum() <= round(0.2 * len(ids))
    for value in np.unique(strata) if strata is not None else []:
        rows = strata == value
        assert abs(chosen[rows].sum() - 0.2 * rows.sum()) <= 1


def test_seeds_and_splits_give_different_draws() -> None:
    ids = np.arange(100).astype(str)
    drawn = {halves(ids, None, "x", seed)[0].tobytes() for seed in range(20)}
    drawn |= {halves(ids, None, "other", seed)[0].tobytes() for seed in range(20)}
    assert len(drawn) == 40
    assert len({draw_of(ids, seed=seed)[0].tobytes() for seed in range(20)}) == 20


def test_halves_overlap_as_independent_draws_do() -> None:
    ids = np.arange(4000).astype(str)
    first, second = (halves(ids, None, "x", seed)[0] for seed in (0, 1))
    assert abs((first & second).mean() - 0.25) < 0.03


def test_default_share() -> None:
    _, evaluation = draw_of(np.arange(10).astype(str))
    assert evaluation.sum() == 3


@pytest.mark.parametrize(
    ("column", "train", "test"),
    [
        (np.array(["train", "test", "other", "train"]), "train", "test"),
        (np.array(["train", "test", None, "train"], dtype=object), "train", "test"),
        (np.array([1.0, 2.0, np.nan, 1.0]), "1", "2"),
        (np.array([1, 2, 3, 1]), "1", "2"),
        (np.array([True, False, False, True]), "True", "False"),
        (np.array([b"train", b"test", b"x", b"train"]), "train", "test"),
    ],
)
def test_given_words(column: NDArray[Any], train: str, test: str) -> None:
    ids = np.arange(4).astype(str)
    training, evaluation = draw_of(ids, {"s": column}, column="s", train=train, test=test)
    assert training.tolist() == [True, False, False, True]
    assert evaluation[1]
    assert not (training & evaluation).any()


@pytest.mark.parametrize(
    ("columns", "split", "words"),
    [
        ({"splt": np.array(["train"] * 3)}, {"column": "split"}, "did you mean 'splt'"),
        ({"s": np.array(["train"] * 3)}, {"column": "s"}, "no row has 'test'.*found: train"),
        ({"s": np.array(["test"] * 3)}, {"column": "s"}, "no row has 'train'"),
        ({"s": np.array([0.5, 1, 2])}, {"column": "s"}, "'s' has fractions"),
        ({"s": np.zeros((3, 2))}, {"column": "s"}, "'s' has shape"),
        ({}, {"test": 0.01}, "the evaluation split has no samples"),
    ],
)
def test_splits_that_cannot_be(
    columns: dict[str, NDArray[Any]], split: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=f"data set 'd'.*{words}"):
        draw_of(np.arange(3).astype(str), columns, **split)


def test_no_samples() -> None:
    with pytest.raises(InputError, match="the training split has no samples"):
        draw_of(np.array([], dtype=str))


def test_ids_that_are_not_valid_unicode() -> None:
    a, _ = halves(np.array(["\ud800", "b"]), None, "x", 0)
    assert a.sum() == 1
