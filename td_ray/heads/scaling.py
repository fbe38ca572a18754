"""Scaling of features by the statistics of one matrix (the training split), for any other.

    column   (x - mean) / deviation, column by column; constant columns become zero
    global   (x - mean) times one factor that makes the mean squared norm the width d
    none     x
    whiten   (x - mean) in the principal axes, each divided by its deviation; null axes are dropped

A penalised head gives the same predictions after: `none` and `global`, orthogonal maps and
translations of the features; `column`, permutations, non-zero column scalings and translations, but
not rotations; `whiten`, every invertible affine map. Deviations divide by n.

Statistics and scaled values are computed in float64, over blocks of a fixed number of rows: they
are the same bytes whether the features lie in memory or stream from a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from td_ray.errors import InputError
from td_ray.heads.rows import Features, blocks
from td_ray.registry import closest

SCALINGS = ("column", "global", "none", "whiten")

# Of the blocks. Not a matter of memory alone: another number moves the last bits.
ROWS = 256


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
        """Scale (m, d) features; returns (m, d), or (m, r) for `whiten`.

        The result is float64 for float64 features and float32 for all others: computed in float64,
        rounded once. A row's result does not depend on the rows beside it.

        Raises:
            InputError: the width is not the one that the scaling was fitted on.
        """
        if features.ndim != 2 or features.shape[1] != len(self.centre):
            raise InputError(
                f"the scaling was fitted on {len(self.centre)} features per row; "
                f"it cannot be applied to {tuple(features.shape)}"
            )
        width = len(self.centre) if self.axes is None else self.axes.shape[1]
        precision = torch.float64 if features.dtype == torch.float64 else torch.float32
        scaled = torch.empty(len(features), width, dtype=precision, device=features.device)
        for rows, block in blocks(features, ROWS):
            scaled[rows] = self._scale(block)
        return scaled

    def _scale(self, block: Tensor) -> Tensor:
        scaled = (block.to(torch.float64) - self.centre).mul_(self.factor)
        if self.axes is None:
            return scaled
        # The order in which a matrix product sums depends on its shape, so the shape is constant.
        return (pad(scaled, (0, 0, 0, ROWS - len(block))) @ self.axes)[: len(block)]


@dataclass(frozen=True)
class _Columns:
    """Statistics of n rows, column by column: each (d,) float64.

    Attributes:
        centre: means.
        varies: 1 where the largest value exceeds the smallest, else 0.
        variance: mean squared deviations, zero for columns that do not vary.
    """

    centre: Tensor
    varies: Tensor
    variance: Tensor


def fit_scaling(features: Features, kind: str = "column") -> Scaling:
    """Fit a scaling of the given kind on (n, d) features; the statistics are on their device.

    The features are read two or three times in blocks; `whiten` needs a few (d, d) matrices beside.
    A column counts as constant when its largest value equals its smallest: its mean carries
    rounding errors, its range does not.

    Raises:
        InputError: unknown kind, or features that are not a finite floating-point matrix.
    """
    if kind not in SCALINGS:
        raise InputError(f"unknown scaling '{kind}': {closest(kind, SCALINGS)}")
    if len(features.shape) != 2 or 0 in features.shape or not features.dtype.is_floating_point:
        raise InputError(
            "features must be a non-empty (n, d) floating-point tensor, "
            f"not {tuple(features.shape)} {features.dtype}"
        )
    columns = _columns(features)
    centre, varies, variance = columns.centre, columns.varies, columns.variance
    if kind == "none":
        return Scaling(kind, torch.zeros_like(centre), torch.ones_like(centre))
    if kind == "column":
        return Scaling(kind, centre, varies / torch.where(varies > 0, variance.sqrt(), 1.0))
    if kind == "global":
        total = variance.sum()
        factor = (len(centre) / total).sqrt() if bool(total > 0) else total
        return Scaling(kind, centre, varies * factor)
    return Scaling(kind, centre, varies, _whitening(features, columns))


def _columns(features: Features) -> _Columns:
    # Deviations from any one row sum with less rounding than values do, under a large offset.
    first = low = high = features[0:1][0].to(torch.float64)
    total = torch.zeros_like(first)
    for _, block in blocks(features, ROWS):
        smallest, largest = (x.to(torch.float64) for x in torch.aminmax(block, dim=0))
        low, high = torch.minimum(low, smallest), torch.maximum(high, largest)
        total += (block.to(torch.float64) - first).sum(0)
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):  # NaN is kept by both
        raise InputError("features contain NaN or infinity; remove or impute these rows")
    centre, varies = first + total / len(features), (high > low).to(torch.float64)
    squares = torch.zeros_like(total)
    for _, block in blocks(features, ROWS):
        squares += ((block.to(torch.float64) - centre) * varies).square().sum(0)
    return _Columns(centre, varies, squares / len(features))


def _whitening(features: Features, columns: _Columns) -> Tensor:
    """(d, r) axes of the centred features that are not null, each over its deviation.

    They are the singular vectors of R in a QR decomposition, which grows block by block.
    """
    rows, width = features.shape
    triangle = columns.centre.new_zeros(0, width)
    # Blocks as tall as R at least: each costs a decomposition of R again.
    for _, block in blocks(features, max(ROWS, 2 * width)):
        centred = (block.to(torch.float64) - columns.centre) * columns.varies
        triangle = torch.linalg.qr(torch.cat([triangle, centred]), mode="r").R
    _, singular, axes = torch.linalg.svd(triangle, full_matrices=False)
    # The features were rounded to their own precision before they came here. That noise has
    # singular values up to about this; whitening would blow them up to unit variance.
    size = (columns.variance + columns.centre.square()).amax().sqrt()
    rounding = torch.finfo(features.dtype).eps * size * (rows**0.5 + width**0.5)
    kept = singular > rounding
    scaled: Tensor = axes[kept].T * (rows**0.5 / singular[kept])
    return scaled
