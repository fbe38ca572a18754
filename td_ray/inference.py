"""Seeds: how much two heads differ because of their training sets, and how much beyond that.

Seed r cuts the training split into complementary halves A_r and B_r; each model has a head on each.

    floor(F)      = mean_r d( h_A(F), h_B(F) )
    tdx(F, F')    = mean_r [ d( h_A(F), h'_B(F') ) + d( h_B(F), h'_A(F') ) ] / 2
    excess(F, F') = tdx(F, F') - ( floor(F) + floor(F') ) / 2

All three are at half the training size. The two heads in every distance have seen disjoint training
sets, so the excess estimates half the mean squared gap of the models' prediction frequencies over
training sets: zero for equivalent representations, never negative in population but sometimes in
samples; it is not clipped.

Predictions of one half are (R, M, n): seeds, models, examples. A distance takes (A, n) and (B, n)
predictions to an (A, B) matrix; where it has no answer it gives NaN, and so do the means over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError

Predictions = NDArray[Any]
Floats = NDArray[np.float64]
Distance = Callable[[Predictions, Predictions], Floats]


def noise_floor(half_a: Predictions, half_b: Predictions, distance: Distance) -> Floats:
    """(M,) mean over seeds of the distance between a model's two half heads.

    Args:
        half_a: (R, M, n) predictions of the heads fitted on the halves A.
        half_b: (R, M, n) predictions of those fitted on the halves B.
        distance: see the module.

    Raises:
        InputError: the shapes differ, or there is no seed.
    """
    _check(half_a, half_b)
    floors = np.empty(half_a.shape[:2])
    for seed, model in np.ndindex(*floors.shape):
        floors[seed, model] = distance(half_a[seed, model, None], half_b[seed, model, None])[0, 0]
    return np.asarray(floors.mean(axis=0))


def cross_discrepancy(
    a_half_a: Predictions,
    a_half_b: Predictions,
    b_half_a: Predictions,
    b_half_b: Predictions,
    distance: Distance,
) -> Floats:
    """(A, B) mean over seeds of the distance between heads of two models on opposite halves (tdx).

    Args:
        a_half_a: (R, A, n) predictions of the first models' heads on the halves A.
        a_half_b: (R, A, n) of the same models on the halves B.
        b_half_a: (R, B, n) of the second models on the halves A.
        b_half_b: (R, B, n) of the same models on the halves B.
        distance: see the module.

    Raises:
        InputError: the shapes do not fit, or there is no seed.
    """
    _check(a_half_a, a_half_b)
    _check(b_half_a, b_half_b)
    if len(a_half_a) != len(b_half_a):
        raise InputError(
            f"the models have {len(a_half_a)} and {len(b_half_a)} seeds; they need the same"
        )
    total = np.zeros((a_half_a.shape[1], b_half_a.shape[1]))
    for first_a, first_b, second_a, second_b in zip(
        a_half_a, a_half_b, b_half_a, b_half_b, strict=True
    ):
        total += (distance(first_a, second_b) + distance(first_b, second_a)) / 2
    return total / len(a_half_a)


def excess(tdx: Floats, floor_a: Floats, floor_b: Floats) -> Floats:
    """(A, B) cross discrepancy (A, B) less the mean of the noise floors (A,) and (B,); not clipped.

    Raises:
        InputError: the shapes do not fit.
    """
    if tdx.shape != (len(floor_a), len(floor_b)):
        raise InputError(
            f"tdx {tdx.shape} needs floors of lengths {tdx.shape}, "
            f"not {len(floor_a)} and {len(floor_b)}"
        )
    return np.asarray(tdx - (floor_a[:, None] + floor_b[None, :]) / 2)


def _check(half_a: Predictions, half_b: Predictions) -> None:
    if half_a.ndim != 3 or half_a.shape != half_b.shape or not len(half_a):
        raise InputError(
            "the halves' predictions must have one shape (seeds, models, examples), at least one "
            f"seed; found {half_a.shape} and {half_b.shape}"
        )
