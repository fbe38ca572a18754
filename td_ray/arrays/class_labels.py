"""Class labels that people have, as codes: integers, booleans or text, of several models."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from td_ray.errors import InputError

Labels = NDArray[Any]
MOST_CODES = 2**16


def class_codes(predictions: Mapping[str, ArrayLike]) -> NDArray[np.integer]:
    """(models, examples) codes: equal where labels are equal, whatever the types of arrays.

    True is 1 and False is 0, as in numpy.

    Raises:
        InputError: no models, or predictions that are no labels of the same examples.
    """
    if not isinstance(predictions, Mapping):
        raise InputError(f"predictions are a dict of arrays by name, not {type(predictions)}")
    if not predictions:
        raise InputError("no predictions given")
    labels = {name: _labels(name, values) for name, values in predictions.items()}
    first = next(iter(labels))
    for name, array in labels.items():
        if len(array) != len(labels[first]):
            raise InputError(
                f"predictions must be of the same examples: {first} has {len(labels[first])}, "
                f"{name} has {len(array)}"
            )
        if (array.dtype.kind == "U") != (labels[first].dtype.kind == "U"):
            kinds = ["text" if x.dtype.kind == "U" else "numbers" for x in (labels[first], array)]
            raise InputError(
                f"predictions of {first} are {kinds[0]}, and those of {name} are {kinds[1]}; give "
                "all of them the same labels"
            )
    found = np.stack(list(labels.values()))
    if found.dtype.kind in "iu" and found.size and found.min() >= 0 and found.max() < MOST_CODES:
        return found  # codes already
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def _labels(name: str, values: ArrayLike) -> Labels:
    """(n,) whole numbers that int64 holds, or text."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"predictions of {name} are not an array: {error}") from None
    if array.dtype.kind == "O" and array.ndim == 1:
        array = _of_objects(name, array)
    if array.ndim != 1 or array.dtype.kind not in "biuU":
        raise InputError(
            f"predictions of {name} must be (examples,) labels: integers, booleans or strings, "
            f"not {array.shape} {array.dtype}"
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise InputError(f"predictions of {name} hold {array.max()}, which int64 cannot hold")
        return array.astype(np.int64)
    return array


def _of_objects(name: str, array: Labels) -> Labels:
    """Objects as numpy's own strings or integers, if they are all of one kind."""
    if all(isinstance(each, str) for each in array):
        return array.astype(str)
    for place, each in enumerate(array):
        if not isinstance(each, Integral | np.bool_):
            mixed = "text and numbers" if isinstance(each, str) else repr(each)
            raise InputError(
                f"predictions of {name} must be all integers, all booleans or all strings, and "
                f"among them is {mixed} (example {place}, counted from 0)"
            )
    return array.astype(np.int64)
