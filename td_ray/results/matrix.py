"""Matrices from rows of pairs: symmetric, named, and honest about what is missing."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from td_ray.errors import InputError, PartialMatrixWarning

VALUES = ("value", "tdx", "excess")


def labels(frame: pd.DataFrame, model: str = "model", layer: str = "layer") -> pd.Series[str]:
    """Names of representations: the model's, with ``@layer``."""
    return frame[model] + "@" + frame[layer]


def short_names(models: pd.DataFrame) -> dict[str, str]:
    """``model@layer`` -> ``model`` where the model has a single layer."""
    alone = ~models["model"].duplicated(keep=False)
    names = labels(models)
    shown = models["model"].where(alone, names)
    return dict(zip(names, shown, strict=True))


def to_matrix(pairs: pd.DataFrame, models: pd.DataFrame, value: str = "value") -> pd.DataFrame:
    """Return the symmetric matrix of a column of ``pairs``.

    The diagonal is 0 for ``value`` and ``excess`` and the noise floor for ``tdx``. Pairs that
    are not there are NaN, counted in ``attrs["missing"]``, with a warning.

    Raises:
        InputError: no such column.
    """
    if value not in VALUES:
        raise InputError(f"a matrix shows one of {', '.join(VALUES)}, not '{value}'")
    names = list(labels(models))
    place = {name: number for number, name in enumerate(names)}
    filled = np.full((len(names), len(names)), np.nan)
    a = labels(pairs, "model_a", "layer_a").map(place).to_numpy(dtype=int)
    b = labels(pairs, "model_b", "layer_b").map(place).to_numpy(dtype=int)
    filled[a, b] = filled[b, a] = pairs[value].to_numpy(dtype=float)
    diagonal = floors(pairs, models).to_numpy() if value == "tdx" else np.zeros(len(names))
    np.fill_diagonal(filled, diagonal)
    above = np.triu_indices(len(names), 1)
    missing = int(np.isnan(filled[above]).sum())
    short = short_names(models)
    shown = [short[name] for name in names]
    frame = pd.DataFrame(filled, index=shown, columns=shown)
    frame.attrs["missing"] = missing
    if missing:
        warnings.warn(
            f"{missing} of {len(above[0])} pairs have no value: not asked for, failed, or null "
            "with a reason (see the failures and pairs tables)",
            PartialMatrixWarning,
            stacklevel=3,
        )
    return frame


def family_means(pairs: pd.DataFrame, family: str, n_tasks: int) -> pd.DataFrame:
    """Mean over the tasks of a family, a row for each pair of representations.

    A mean is null where one of the tasks has no value: the others are not the same family.
    """
    names = ["model_a", "layer_a", "model_b", "layer_b", "data", "head", "measure"]
    means = ["value", "floor_a", "floor_b", "tdx", "excess"]
    grouped = pairs.astype(dict.fromkeys(means, float)).groupby(names, sort=False)
    frame = grouped[means].mean()
    frame[means] = frame[means].where(grouped[means].count() == n_tasks)
    counts = grouped[["n_examples", "n_seeds"]].min()
    lacking = n_tasks - grouped["value"].count()
    frame["reason"] = [
        f"{left} of the {n_tasks} tasks have no value" if left else None for left in lacking
    ]
    return frame.join(counts).assign(task=family).reset_index().reindex(columns=pairs.columns)


def floors(pairs: pd.DataFrame, models: pd.DataFrame) -> pd.Series[float]:
    """The noise floor of each representation; NaN where it has no seeds."""
    names = list(labels(models))
    found: dict[str, float] = {}
    for side in "ab":
        names_of_side = [f"model_{side}", f"layer_{side}"]
        owners = pairs[[*names_of_side, f"floor_{side}"]].drop_duplicates(names_of_side)
        values = owners[f"floor_{side}"].astype(float)
        found.update(zip(labels(owners, *names_of_side), values, strict=True))
    short = short_names(models)
    listed = [found.get(name, np.nan) for name in names]
    return pd.Series(listed, index=[short[name] for name in names], name="floor", dtype=float)


def group_means(
    pairs: pd.DataFrame, models: pd.DataFrame, by: str, value: str = "value"
) -> pd.DataFrame:
    """Mean of a column over pairs of distinct representations, within and between groups.

    The last column, ``floor``, is the mean noise floor of the group.
    """
    groups = models[by].map(_group)
    group = dict(zip(labels(models), groups, strict=True))
    order = list(dict.fromkeys(groups))
    a = labels(pairs, "model_a", "layer_a").map(group)
    b = labels(pairs, "model_b", "layer_b").map(group)
    both = pd.DataFrame(
        {
            "a": pd.concat([a, b]).to_numpy(),
            "b": pd.concat([b, a]).to_numpy(),
            "value": np.tile(pairs[value].to_numpy(dtype=float), 2),
        }
    )
    table = both.groupby(["a", "b"])["value"].mean().unstack()
    table = table.reindex(index=order, columns=order)
    table.index.name = table.columns.name = None
    by_group = floors(pairs, models).groupby(groups.to_numpy()).mean()
    return table.assign(floor=by_group.reindex(order))


def _group(value: object) -> str:
    """The name of a group; its own column is not mistaken for the noise floor."""
    if pd.isna(value):  # type: ignore[call-overload]  # a metadata value is a scalar
        return "(none)"
    return "floor (group)" if value == "floor" else str(value)


def cluster_order(matrix: pd.DataFrame) -> NDArray[np.intp]:
    """Row numbers (N,) that put alike representations side by side (average linkage)."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    values = matrix.to_numpy()
    if len(values) < 3 or np.isnan(values[np.triu_indices(len(values), 1)]).all():
        return np.arange(len(values))
    filled = np.where(np.isnan(values), np.nanmax(values), values)
    np.fill_diagonal(filled, 0.0)
    condensed = squareform(filled, checks=False)
    tree = linkage(condensed, method="average")
    order: NDArray[np.intp] = leaves_list(optimal_leaf_ordering(tree, condensed))
    return order
