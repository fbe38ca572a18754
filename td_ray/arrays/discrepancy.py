"""The Transferred Discrepancy of feature arrays at hand; no cluster, no files, no chance.

    from td_ray import transferred_discrepancy
    transferred_discrepancy(a_train, b_train, y_train, a_eval, b_eval)

Each representation gets the best head for the task `y_train`, each on its own; the result is how
differently the two heads predict the evaluation rows (Feng et al., arXiv 2007.12446):

    classification   share of rows with different predicted classes, in [0, 1]
    regression       2 - 2 cos of the predictions, centred by the training mean of y, in [0, 4]

Features are scaled column by column (training mean and deviation; constant columns become zero).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from td_ray.arrays.class_labels import class_codes
from td_ray.errors import InputError, WorkError
from td_ray.heads import ClassTarget, Target, ValueTarget, fit_heads, fit_scaling, fit_targets
from td_ray.heads.stand_ins import predict_stand_ins
from td_ray.measures import disagreement, has_direction, value_distance
from td_ray.measures.mimic import stand_in_distance

Array = ArrayLike | Tensor
CONSTANT = "its predictions on the evaluation rows are all alike: no direction to compare"


def transferred_discrepancy(
    a_train: Array,
    b_train: Array,
    y_train: Array,
    a_eval: Array,
    b_eval: Array,
    *,
    head: str = "logistic",
    l2: float = 1e-3,
) -> float:
    """Discrepancy of two representations for one task.

    Args:
        a_train: (n, d) features of the first representation, numpy or torch, on the training rows.
        b_train: (n, d') features of the second one, on the same rows.
        y_train: (n,) task. Integers, booleans and strings are class labels; floating point is
            regression.
        a_eval: (m, d) features of the first representation on held-out rows.
        b_eval: (m, d') features of the second one, on the same rows.
        head: "logistic" (labels) or "ridge" (values, or labels as one-hot columns).
        l2: penalty; > 0 for logistic, >= 0 for ridge.

    Returns:
        The disagreement in [0, 1] for labels, or 2 - 2 cos in [0, 4] for values; higher is more
        different.

    Raises:
        InputError: the arguments do not fit together; the message names the first that does not.
        WorkError: a head did not converge, or predicts a constant value.
    """
    matrix = pairwise_discrepancy(
        {"a": a_train, "b": b_train}, {"a": a_eval, "b": b_eval}, y_train, head=head, l2=l2
    )
    for name, reason in matrix.attrs["reasons"].items():
        raise WorkError(f"representation {name}: {reason}")
    return float(matrix.to_numpy()[0, 1])


def pairwise_discrepancy(
    features_train: Mapping[str, Array],
    features_eval: Mapping[str, Array],
    y_train: Array,
    *,
    head: str = "logistic",
    l2: float = 1e-3,
) -> pd.DataFrame:
    """Discrepancies of all pairs of N named representations for one task, from N fits.

    Args:
        features_train: name to (n, d) features on the training rows; widths may differ.
        features_eval: the same names to (m, d) features on held-out rows.
        y_train: (n,) task, as for `transferred_discrepancy`.
        head: as there.
        l2: as there.

    Returns:
        Symmetric data frame with the names, in the order of `features_train`, on both axes and
        zeros on the diagonal. A head that predicts a constant value has no discrepancy from any
        other: its row and column are NaN, and `attrs["reasons"]` maps its name to the reason. So
        has one whose evaluation rows are all alike.

    Raises:
        InputError: the arguments do not fit together; the message names the first that does not.
        WorkError: a head did not converge.
    """
    train, held_out = _features(features_train, features_eval)
    target = _target(y_train, len(next(iter(train.values()))))
    predictions = {}
    for name in train:
        predictions[name] = _predict(name, train[name], held_out[name], target, head, l2)
    rows = np.stack(list(predictions.values()))
    kind = "classification" if isinstance(target, ClassTarget) else "regression"
    values = (disagreement if kind == "classification" else value_distance)(rows, rows)
    names, reasons = list(predictions), {}
    if kind == "regression":
        directed = has_direction(rows)
        reasons = {name: CONSTANT for name, good in zip(names, directed, strict=True) if not good}
    for i, j in itertools.combinations(range(len(names)), 2):
        values[j, i] = values[i, j]  # the two triangles may differ by rounding
    np.fill_diagonal(values, np.where(np.isnan(values.diagonal()), np.nan, 0.0))
    table = pd.DataFrame(values, index=names, columns=names)
    table.attrs["reasons"] = reasons
    return table


def directed_discrepancy(
    features_train: Mapping[str, Array],
    features_eval: Mapping[str, Array],
    y_train: Array,
    *,
    head: str = "logistic",
    l2: float = 1e-3,
) -> pd.DataFrame:
    """How well each of N named representations can stand in for each other one, for one task.

    A second head is fitted on the stand-in F' to reproduce, on the training rows, what the best
    head on F predicts: its labels, or its values. The result is how differently the two predict
    the evaluation rows. For ridge all N heads are columns of one factorisation of F'; logistic
    regression takes N^2 fits.

    Args:
        features_train: name to (n, d) features on the training rows; widths may differ.
        features_eval: the same names to (m, d) features on held-out rows.
        y_train: (n,) task, as for `transferred_discrepancy`.
        head: as there.
        l2: as there, for the heads and for their stand-ins.

    Returns:
        Data frame with a row for each representation F that is stood in for, and a column for each
        stand-in F'; it is not symmetric. On the diagonal a representation stands in for itself,
        which is not zero: it is its own floor. A head or a stand-in that predicts a constant value
        has no direction: NaN.

    Raises:
        InputError: the arguments do not fit together; the message names the first that does not.
        WorkError: a head did not converge.
    """
    train, held_out = _features(features_train, features_eval)
    target = _target(y_train, len(next(iter(train.values()))))
    names = list(train)
    outputs = [_outputs(name, train[name], held_out[name], target, head, l2) for name in names]
    copies: list[Target] = [
        ValueTarget(on_train)
        if isinstance(target, ValueTarget)
        else ClassTarget(on_train, target.n_classes)
        for on_train, _ in outputs
    ]
    predicted = np.stack([on_held_out.numpy() for _, on_held_out in outputs])
    table = pd.DataFrame(np.nan, index=names, columns=names)
    for name in names:
        scaling = fit_scaling(train[name], "column")
        fit = partial(fit_targets, head, scaling.apply(train[name]), l2=l2)
        try:
            (found,) = predict_stand_ins(fit, copies, [scaling.apply(held_out[name])])
        except WorkError as error:
            raise WorkError(f"a stand-in on representation {name}: {error}") from error
        distance = "cosine" if isinstance(target, ValueTarget) else None
        table[name] = stand_in_distance(predicted, found.numpy(), distance)
    return table


def pairwise_disagreement(
    predictions: Mapping[str, ArrayLike],
    *,
    threads: int | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """How often named models predict different classes, for outputs that are there already.

    Args:
        predictions: name to (n,) predicted classes of the same n examples: integers, booleans or
            strings.
        threads: that share the work of the compiled kernel; by default one for each core.
        device: "cuda", "mps" or "cpu" counts by matrix products there; by default the compiled
            kernel counts, on the CPU.

    Returns:
        Symmetric data frame of shares in [0, 1], exact whatever the device, with the names on both
        axes.

    Raises:
        InputError: no models, predictions that are no labels of the same examples, or a device
            that is unknown or not on this machine.
    """
    codes = class_codes(predictions)
    if threads is not None and threads < 1:
        raise InputError(f"'threads' is at least 1, not {threads}")
    values = disagreement(codes, codes, threads or os.cpu_count() or 1, device)
    return pd.DataFrame(values, index=list(predictions), columns=list(predictions))


def _predict(
    name: str, train: Tensor, held_out: Tensor, target: Target, head: str, l2: float
) -> NDArray[Any]:
    """(m,) class codes, or values less the training mean, of one representation's best head."""
    return np.asarray(_outputs(name, train, held_out, target, head, l2)[1].numpy())


def _outputs(
    name: str, train: Tensor, held_out: Tensor, target: Target, head: str, l2: float
) -> tuple[Tensor, Tensor]:
    """The same for the training rows and for those held out."""
    scaling = fit_scaling(train, "column")
    weights = torch.ones(1, len(train), dtype=torch.float64)
    scaled = scaling.apply(train)
    try:
        fitted = fit_heads(head, scaled, target, weights, l2)
    except WorkError as error:
        raise WorkError(f"representation {name}: {error}") from error
    center = target.values.mean() if isinstance(target, ValueTarget) else 0
    on_train, on_held_out = (fitted.predict(rows)[0] for rows in (scaled, scaling.apply(held_out)))
    return on_train - center, on_held_out - center


def _features(
    train: Mapping[str, Array], held_out: Mapping[str, Array]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both mappings as float64 matrices that fit together."""
    for what, given in (("training", train), ("evaluation", held_out)):
        if not isinstance(given, Mapping):
            raise InputError(f"{what} features are a dict of arrays by name, not {type(given)}")
    if not train:
        raise InputError("no representations given")
    if set(train) != set(held_out):
        odd = sorted(set(train) ^ set(held_out), key=lambda name: (str(name), type(name).__name__))
        raise InputError(f"training and evaluation features must have the same names; see {odd}")
    first = next(iter(train))
    fitted = {name: _matrix(f"training features of {name}", train[name]) for name in train}
    scored = {name: _matrix(f"evaluation features of {name}", held_out[name]) for name in train}
    for name in train:
        if fitted[name].shape[1] != scored[name].shape[1]:
            raise InputError(
                f"features of {name} have {fitted[name].shape[1]} columns in training "
                f"but {scored[name].shape[1]} in evaluation"
            )
        for what, matrices in (("training", fitted), ("evaluation", scored)):
            if len(matrices[name]) != len(matrices[first]):
                raise InputError(
                    f"{what} features must be on the same rows: {first} has "
                    f"{len(matrices[first])}, {name} has {len(matrices[name])}"
                )
    return fitted, scored


def _numpy(what: str, values: Array) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.to(torch.float64) if values.is_floating_point() else values
        return np.asarray(values.numpy())
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what} are not a rectangular array: {error}") from error


def _matrix(what: str, values: Array) -> Tensor:
    array = _numpy(what, values)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{what} must be a non-empty (rows, features) array, not {array.shape}")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what} must be numbers, not {array.dtype}")
    matrix = np.array(array, dtype=np.float64)
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        raise InputError(
            f"{what} contain NaN or infinity in {bad.sum()} rows, the first is row {bad.argmax()}; "
            "remove or impute them"
        )
    return torch.from_numpy(matrix)


def _target(values: Array, rows: int) -> Target:
    array = _numpy("y_train", values)
    if array.shape != (rows,):
        raise InputError(f"y_train must have one entry per training row, {rows}, not {array.shape}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError("y_train contains NaN or infinity; remove these rows")
        return ValueTarget(torch.from_numpy(np.array(array, dtype=np.float64)))
    labels = array.dtype.kind in "iubU" or all(isinstance(value, str) for value in array)
    if not labels:
        raise InputError(
            f"y_train must be integers, booleans or strings (classes) or floats, not {array.dtype}"
        )
    classes, codes = np.unique(array, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y_train has a single class, '{classes[0]}'; a task needs at least two")
    return ClassTarget(torch.from_numpy(codes.astype(np.int64)), len(classes))
