"""Measures of feature matrices at hand; no head is fitted, no task is needed, no chance.

from td_ray import pairwise_measure
pairwise_measure({"a": a, "b": b, "c": c}, "cka")
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from td_ray.errors import InputError
from td_ray.measures.features import find_feature_measure

if TYPE_CHECKING:
    from torch import Tensor

    Array = ArrayLike | Tensor


def pairwise_measure(features: Mapping[str, Array], measure: str, **options: Any) -> pd.DataFrame:
    """Compare all pairs of N named feature matrices; each is prepared once.

    Args:
        features: name to (n, d) features, numpy or torch, of the same n examples; widths may
            differ. What is smaller than the rounding of their type is taken for rounding errors:
            pass float32 features as float32.
        measure: "cka", "cka_debiased", "cca", "procrustes", "gulp", "rsa" or "knn"; see
            `td_ray.measures.features` for their formulas.
        options: of the measure: `ridge` of cca, `l` of gulp, `dissimilarity` and `correlation` of
            rsa, `k` of knn.

    Returns:
        Symmetric data frame with the names on both axes, each model's value with itself on the
        diagonal. Its `attrs` say how to read it: `measure`, `options`, `direction` ("higher is
        more similar" or "... different"), `range`, `squared` and `source`.

    Raises:
        InputError: no such measure or option, features that do not fit together, or that the
            measure cannot compare; the message names the first.
    """
    found = find_feature_measure(measure, options)
    if not isinstance(features, Mapping):
        raise InputError(f"features are a dict of arrays by name, not {type(features)}")
    if not features:
        raise InputError("no features given")
    first = next(iter(features))
    matrices = {name: _matrix(name, values) for name, values in features.items()}
    for name, matrix in matrices.items():
        if len(matrix) != len(matrices[first]):
            raise InputError(
                f"features must be of the same examples: {first} has {len(matrices[first])} rows, "
                f"{name} has {len(matrix)}"
            )
    states = []
    for name, matrix in matrices.items():
        try:
            states.append(found.prepare(matrix, _eps(features[name])))
        except InputError as error:
            raise InputError(f"features of {name}: {error}") from None
    table = pd.DataFrame(
        found.compare(states, states), index=list(matrices), columns=list(matrices)
    )
    table.attrs = {
        "measure": found.name,
        "options": found.options,
        "direction": found.direction,
        "range": found.range,
        "squared": found.squared,
        "source": found.source,
    }
    return table


def _eps(values: Array) -> float | None:
    """The eps of a tensor of bfloat16, a type that numpy lacks; None for all else."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(values, torch.Tensor) or values.dtype != torch.bfloat16:
        return None
    return float(torch.finfo(values.dtype).eps)


def _matrix(name: str, values: Array) -> NDArray[Any]:
    """(n, d) finite numbers; torch is not imported for those who have none of its tensors."""
    torch = sys.modules.get("torch")
    given: Any = values
    if torch is not None and isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"features of {name} are not a rectangular array: {error}") from None
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(
            f"features of {name} must be a non-empty (rows, features) array, not {array.shape}"
        )
    if array.dtype.kind not in "fiub":
        raise InputError(f"features of {name} must be numbers, not {array.dtype}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise InputError(
            f"features of {name} contain NaN or infinity in {bad.sum()} rows, the first is row "
            f"{bad.argmax()}; remove or impute them"
        )
    return array
