"""Seeds: how much two heads differ because of their training sets, and how much beyond that.

Seed r cuts the training split into complementary halves A_r and B_r; each model has a head on each.

    floor(F)      = mean_r [ d( h_A(F), h_B(F) ) + d( h_B(F), h_A(F) ) ] / 2
    tdx(F, F')    = mean_r [ d( h_A(F), h'_B(F') ) + d( h_B(F), h'_A(F') ) ] / 2
    excess(F, F') = tdx(F, F') - ( floor(F) + floor(F') ) / 2

(where d is symmetric, the floor is the mean of d( h_A, h_B )). All three are at half the training
size. The two heads in every distance have seen disjoint training sets, so the excess estimates half
the mean squared gap of the models' prediction frequencies over training sets: zero for equivalent
representations, never negative in population but sometimes in samples; it is not clipped.

The heads of one half are a sequence over seeds of M models' outputs: (R, M, n) arrays, or lists of
`measures.Outputs`. A distance takes A and B outputs to an (A, B) matrix; where it has no answer it
gives NaN, and so do the means over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError

Heads = Any
"""Outputs of M models: has a length, and a slice of it holds some of them."""
BySeed = Sequence[Heads] | NDArray[Any]
Floats = NDArray[np.float64]
Distance = Callable[[Heads, Heads], Floats]

MODELS_AT_ONCE = 8
"""Whose floors are the diagonal of one small matrix: few calls, and little that is not wanted."""


def noise_floor(
    half_a: BySeed, half_b: BySeed, distance: Distance, *, is_symmetric: bool = True
) -> Floats:
    """(M,) mean over seeds of the distance between a model's two half heads.

    Args:
        half_a: by seed, the M heads fitted on the halves A.
        half_b: by seed, those fitted on the halves B.
        distance: see the module.
        is_symmetric: whether the distance is; else both directions are averaged.

    Raises:
        InputError: other numbers of seeds or models, or no seed.
    """
    _check(half_a, half_b)
    floors = [_own(distance, a, b) for a, b in zip(half_a, half_b, strict=True)]
    if not is_symmetric:
        floors += [_own(distance, b, a) for a, b in zip(half_a, half_b, strict=True)]
    return np.asarray(np.mean(floors, axis=0))


def _own(distance: Distance, a: Heads, b: Heads) -> Floats:
    """(M,) distances of each model's two heads."""
    starts = range(0, len(a), MODELS_AT_ONCE)
    rows = [slice(start, start + MODELS_AT_ONCE) for start in starts]
    return np.concatenate([np.diagonal(distance(a[some], b[some])) for some in rows])


def cross_discrepancy(
    a_half_a: BySeed, a_half_b: BySeed, b_half_a: BySeed, b_half_b: BySeed, distance: Distance
) -> Floats:
    """(A, B) mean over seeds of the distance between heads of two models on opposite halves (tdx).

    Args:
        a_half_a: by seed, the first A models' heads on the halves A.
        a_half_b: the same models' on the halves B.
        b_half_a: by seed, the second B models' heads on the halves A.
        b_half_b: the same models' on the halves B.
        distance: see the module; from the first models to the second.

    Raises:
        InputError: other numbers of seeds or models, or no seed.
    """
    _check(a_half_a, a_half_b)
    _check(b_half_a, b_half_b)
    if len(a_half_a) != len(b_half_a):
        raise InputError(
            f"the models have {len(a_half_a)} and {len(b_half_a)} seeds; they need the same"
        )
    total = np.zeros((len(a_half_a[0]), len(b_half_a[0])))
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


def _check(half_a: BySeed, half_b: BySeed) -> None:
    models = [[len(heads) for heads in half] for half in (half_a, half_b)]
    if models[0] != models[1] or not models[0] or len(set(models[0])) > 1:
        raise InputError(
            "both halves need the heads of the same models for the same seeds, at least one seed; "
            f"found {len(half_a)} and {len(half_b)} seeds"
        )
