"""Prices are found again from the times that they make."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.costs import Counts, Prices, fit_prices

some = st.floats(1e-2, 1e2)


def works(count: int, seed: int) -> list[Counts]:
    """Work of which each kind is the most of some."""
    sizes = 10 ** np.random.default_rng(seed).uniform(-2, 2, (count, 4))
    return [Counts(a * 1e9, b * 1e9, c * 1e3, d * 1e9) for a, b, c, d in sizes]


@given(some, some, some, some, st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_prices_are_found_again(a: float, b: float, c: float, d: float, seed: int) -> None:
    prices = Prices(gigaflop=a, gigabyte=b, call=c / 1e3, convolved=d)
    measured = works(16, seed)
    found = fit_prices(measured, [prices.seconds(work) for work in measured])
    for work in measured:
        assert found.seconds(work) == pytest.approx(prices.seconds(work), rel=1e-3)


def test_slower_machines_have_higher_prices() -> None:
    measured = works(8, 0)
    random = np.random.default_rng(1)
    seconds = [float(random.uniform(1, 2)) for _ in measured]
    once, twice = fit_prices(measured, seconds), fit_prices(measured, [2 * x for x in seconds])
    for work in measured:
        assert twice.seconds(work) == pytest.approx(2 * once.seconds(work), rel=1e-3)


def test_twice_is_as_wrong_as_half() -> None:
    """Two works of the same size, one of which takes four times as long: the price is between."""
    found = fit_prices([Counts(1e9), Counts(1e9)], [1.0, 4.0])
    assert found.gigaflop == pytest.approx(2.0, rel=1e-3)
    assert (found.gigabyte, found.call, found.convolved) == (0, 0, 0)


def test_work_adds_up() -> None:
    prices = Prices(gigaflop=1, gigabyte=2, call=3, convolved=4)
    one, other = Counts(1e9, 1e9, 1, 1e9), Counts(2e9, 0, 1, 0)
    assert prices.seconds(one) == pytest.approx(10)
    assert prices.seconds(one + other) == pytest.approx(prices.seconds(one) + prices.seconds(other))
    assert prices.seconds(one * 7) == pytest.approx(70)
