"""Scaling of features by the statistics of one matrix (the training split), for any other.

    column   (x - mean) / deviation, column by column; constant columns become zero
    global   (x - mean) times one factor that makes the mean squared norm the width d
    none     x
    whiten   (x - mean) in the principal axes, each divided by its deviation; null axes are dropped

A penalised head gives the same predictions after: `none` and `global`, orthogonal maps and
translations of the features; `column`, permutations, non-zero column scalings and translations, but
not rotations; `whiten`, every invertible affine map. Deviations divide by n.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.registry import closest

SCALINGS = ("column", "global", "none", "whiten")


@dataclass(frozen=True)
class Scaling:
    """A fitted scaling: (x - centre) * factor, then times `axes` where there are any.

    Attributes:
        kind: its name.
        centre: (d,) float64.
        factor: (d,) float64.
        axes: (d, r) float64 for `whiten`, else None.
    """

    kind: str
    centre: Tensor
    factor: Tensor
    axes: Tensor | None = None

    def apply(self, features: Tensor) -> Tensor:
        """Scale (m, d) features; returns float64, (m, d) or (m, r) for `whiten`.

        Raises:
            InputError: the width is not the one that the scaling was fitted on.
        """
        if features.ndim != 2 or features.shape[1] != len(self.centre):
            raise InputError(
                f"the scaling was fitted on {len(self.centre)} features per row; "
                f"it cannot be applied to {tuple(features.shape)}"
            )
        scaled = (features.to(torch.float64) - self.centre) * self.factor
        return scaled if self.axes is None else scaled @ self.axes


def fit_scaling(features: Tensor, kind: str = "column") -> Scaling:
    """Fit a scaling of the given kind on (n, d) features; the statistics are on their device.

    A column counts as constant when its largest value equals its smallest: its mean carries
    rounding errors, its range does not.

    Raises:
        InputError: unknown kind, or features that are not a finite floating-point matrix.
    """
    if kind not in SCALINGS:
        raise InputError(f"unknown scaling '{kind}': {closest(kind, SCALINGS)}")
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise InputError(
            "features must be a non-empty (n, d) floating-point tensor, "
            f"not {tuple(features.shape)} {features.dtype}"
        )
    if not bool(torch.isfinite(features).all()):
        raise InputError("features contain NaN or infinity; remove or impute these rows")
    stored = torch.finfo(features.dtype).eps
    features = features.to(torch.float64)
    if kind == "none":
        return Scaling(kind, torch.zeros_like(features[0]), torch.ones_like(features[0]))
    centre = features.mean(0)
    varies = (features.amax(0) > features.amin(0)).to(torch.float64)
    centred = (features - centre) * varies
    variance = centred.square().mean(0)
    if kind == "column":
        return Scaling(kind, centre, varies / torch.where(varies > 0, variance.sqrt(), 1.0))
    if kind == "global":
        total = variance.sum()
        factor = (len(centre) / total).sqrt() if bool(total > 0) else total
        return Scaling(kind, centre, varies * factor)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    # The features were rounded to their own precision before they came here. That noise has
    # singular values up to about this; whitening would blow them up to unit variance.
    rows, columns = features.shape
    rounding = stored * features.square().mean(0).amax().sqrt() * (rows**0.5 + columns**0.5)
    kept = singular > rounding
    return Scaling(kind, centre, varies, axes[kept].T * (len(features) ** 0.5 / singular[kept]))
