"""A matrix of pairs with what it takes to read it: names, noise floors, range and direction."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from td_ray.errors import InputError, PartialMatrixWarning
from td_ray.registry import closest
from td_ray.results.names import group_names, names_of

Floats = NDArray[np.float64]

NAMED = 5
"""Representations that a warning names."""

OPTIMAL_ORDER = 1000
"""Above so many representations the leaves of the tree stay as they come: ordering them takes
cubic time."""


@dataclass(frozen=True)
class Scale:
    """How values of a measure read.

    Attributes:
        measure: its name.
        value: ``value``, or the half-size ``tdx`` or ``excess``.
        low: the smallest possible value.
        high: the largest possible value; may be infinite.
        is_similarity: whether higher is more similar.
        is_squared: whether the root is the metric.
        is_symmetric: whether (a, b) and (b, a) are one pair.
    """

    measure: str
    value: str = "value"
    low: float = 0.0
    high: float = 1.0
    is_similarity: bool = False
    is_squared: bool = False
    is_symmetric: bool = True


@dataclass(frozen=True, eq=False)
class TDMatrix:
    """Values between N representations.

    Attributes:
        values: (N, N) float64, rows to columns; NaN where missing. The diagonal is what a
            representation differs from itself by: 0 (or the measure's value for equal ones, NaN
            where that depends on them), and its noise floor for ``tdx`` and for measures that fit
            anew.
        models: N rows of ``Results.models``, in the order of the matrix.
        floors: (N,) noise floors at half the training split; NaN without seeds.
        scale: what the values are.
    """

    values: Floats
    models: pd.DataFrame
    floors: Floats
    scale: Scale

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        what = f"{self.scale.value} of {self.scale.measure}"
        lacking = f", {self.n_missing:,} pairs missing" if self.n_missing else ""
        shown = pd.DataFrame(self.values, index=self.names, columns=self.names)
        return f"TDMatrix: {what}, {len(self):,} representations{lacking}\n{shown}"

    @property
    def names(self) -> list[str]:
        """The model's name, with ``@layer`` where it has several."""
        return names_of(self.models)

    @property
    def pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of all pairs of distinct representations, each once."""
        square = np.ones(self.values.shape, dtype=np.bool_)
        above = np.triu(square, 1)
        rows, columns = np.nonzero(above if self.scale.is_symmetric else above | above.T)
        return rows, columns

    @property
    def n_missing(self) -> int:
        """Pairs without a value."""
        missing = np.isnan(self.values)
        np.fill_diagonal(missing, val=False)
        return int(missing.sum()) // (2 if self.scale.is_symmetric else 1)

    def to_pandas(self) -> pd.DataFrame:
        """A frame with the names on both axes; ``attrs["missing"]`` counts pairs without a value.

        Warns where some are missing.
        """
        frame = pd.DataFrame(self.values, index=self.names, columns=self.names)
        frame.attrs["missing"] = self.n_missing
        if self.n_missing:
            warnings.warn(self._about_missing(), PartialMatrixWarning, stacklevel=2)
        return frame

    def _about_missing(self) -> str:
        without = np.isnan(self.values)
        np.fill_diagonal(without, val=True)
        all_of = [self.names[number] for number in np.flatnonzero(without.all(axis=1))]
        named = ", ".join(f"'{name}'" for name in all_of[:NAMED])
        more = f" and {len(all_of) - NAMED:,} more" if len(all_of) > NAMED else ""
        return (
            f"{self.n_missing:,} of {len(self.pairs[0]):,} pairs have no value"
            + (f", among them all of {named}{more}" if all_of else "")
            + ": not asked for, not there yet, failed, or null with a reason ('td-ray status' and "
            "the failures and pairs tables say which)"
        )

    def to_condensed(self) -> Floats:
        """(N(N-1)/2,) differences above the diagonal, as ``scipy.cluster`` and ``squareform`` use.

        Of a measure of similarity it is the largest value less each. Of one with directions it is
        the mean of both. Squared measures stay squared.

        Raises:
            InputError: pairs are missing; ``complete`` leaves out the representations that lack
                them.
        """
        if self.n_missing:
            raise InputError(
                f"{self.n_missing:,} pairs of the matrix have no value; take .complete(), which "
                "leaves out representations that lack some"
            )
        return self._differences()[np.triu_indices(len(self), 1)]

    def _differences(self) -> Floats:
        """(N, N) symmetric: higher is more different; NaN where missing."""
        both = (self.values + self.values.T) / 2
        if not self.scale.is_similarity:
            return both
        return (self.scale.high if np.isfinite(self.scale.high) else np.nanmax(both)) - both

    def take(self, order: Sequence[int] | NDArray[Any]) -> Self:
        """Those representations, in that order."""
        places = np.asarray(order, dtype=np.intp)
        return replace(
            self,
            values=self.values[np.ix_(places, places)],
            models=self.models.iloc[places].reset_index(drop=True),
            floors=self.floors[places],
        )

    def complete(self) -> Self:
        """Without representations that lack pairs: the one that lacks most goes first."""
        missing = np.isnan(self.values)
        np.fill_diagonal(missing, val=False)
        missing |= missing.T
        counts, kept = missing.sum(axis=1), np.ones(len(self), dtype=np.bool_)
        while counts.max(initial=0) > 0:
            worst = int(counts.argmax())
            kept[worst] = False
            counts -= missing[worst]
            counts[worst] = 0
            missing[worst] = missing[:, worst] = False
        return self.take(np.flatnonzero(kept))

    def clustering_order(self) -> NDArray[np.intp]:
        """(N,) places that put alike representations side by side (average linkage).

        Missing pairs count as the largest difference.
        """
        from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

        condensed = self._differences()[np.triu_indices(len(self), 1)]
        if len(self) < 3 or np.isnan(condensed).all():
            return np.arange(len(self))
        condensed[np.isnan(condensed)] = np.nanmax(condensed)
        # Scipy orders no tree with negative heights; a shift of all distances shifts every mean of
        # them alike, so that the tree stays the same.
        condensed -= min(condensed.min(), 0.0)
        tree = linkage(condensed, method="average")
        if len(self) <= OPTIMAL_ORDER:
            tree = optimal_leaf_ordering(tree, condensed)
        order: NDArray[np.intp] = leaves_list(tree)
        return order

    def groups(self, by: str) -> list[str]:
        """(N,) the group of each representation by a metadata key.

        Raises:
            InputError: no model has that key.
        """
        if by not in self.models:
            raise InputError(f"no model has metadata '{by}': {closest(by, self.models.columns)}")
        return group_names(self.models[by])

    def group_means(self, by: str) -> pd.DataFrame:
        """Mean over pairs of distinct representations, within and between groups.

        The last column, ``floor``, is the mean noise floor of the group.

        Raises:
            InputError: no model has that key.
        """
        groups = self.groups(by)
        order = list(dict.fromkeys(groups))
        member = np.array([[each == name for each in groups] for name in order], dtype=float)
        member = member.reshape(len(order), len(self))
        known = ~np.isnan(self.values)
        np.fill_diagonal(known, val=False)
        sums = member @ np.where(known, self.values, 0.0) @ member.T
        counts = member @ known @ member.T
        means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        table = pd.DataFrame(means, index=order, columns=order)
        by_group = pd.Series(self.floors).groupby(np.array(groups, dtype=object)).mean()
        return table.assign(floor=by_group.reindex(order))


def mean_matrix(matrices: Iterable[TDMatrix], weights: Sequence[float] | None = None) -> TDMatrix:
    """The mean of matrices of the same representations, such as those of several tasks.

    A value is missing where one of them is: the others are not a mean of the same tasks.

    Args:
        matrices: at least one, as ``Results.matrix`` gives them.
        weights: one for each, not negative; by default equal ones.

    Raises:
        InputError: no matrices, other representations or measures, or unfit weights.
    """
    if isinstance(matrices, pd.DataFrame) or not isinstance(matrices, Iterable):
        raise InputError(f"the mean is of a list of matrices, not of a {type(matrices).__name__}")
    matrices = list(matrices)
    if not matrices:
        raise InputError("there is no matrix to take the mean of")
    for each in matrices:
        check_matrix(each)
    first = matrices[0]
    for other in matrices[1:]:
        if other.names != first.names:
            odd = sorted(set(other.names) ^ set(first.names)) or "another order"
            raise InputError(f"the matrices are not of the same representations: {odd}")
        if other.scale != first.scale:
            raise InputError(
                f"the matrices are of different things: {first.scale.value} of "
                f"{first.scale.measure}, and {other.scale.value} of {other.scale.measure}"
            )
    shares = shares_of(weights, len(matrices))
    values = sum(share * each.values for share, each in zip(shares, matrices, strict=True))
    floors = sum(share * each.floors for share, each in zip(shares, matrices, strict=True))
    return replace(first, values=np.asarray(values), floors=np.asarray(floors))


def check_matrix(given: object) -> None:
    """Refuse what is not a matrix, such as a data frame: it does not say how its values read.

    Raises:
        InputError: says what is wanted instead.
    """
    if not isinstance(given, TDMatrix):
        found = type(given).__name__
        raise InputError(f"a TDMatrix is wanted, as results.matrix(...) gives it, not a {found}")


def shares_of(weights: Sequence[float] | None, count: int) -> Floats:
    """(count,) weights that sum to one; equal ones for None.

    Raises:
        InputError: not one for each, below zero, or all zero.
    """
    try:
        given = np.ones(count) if weights is None else np.asarray(weights, dtype=float)
    except (TypeError, ValueError):  # words, for one
        given = np.full(count, np.nan)
    fits = given.shape == (count,) and np.isfinite(given).all() and (given >= 0).all()
    if not fits or not given.sum() > 0:
        raise InputError(
            f"'weights' is one number for each of {count}, none below 0 and not all 0; "
            f"found {weights}"
        )
    return np.asarray(given / given.sum())
