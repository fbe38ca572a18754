"""Matrices that no run made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform

from td_ray import TDMatrix
from td_ray.results.td_matrix import Scale


def matrix(values: Any, groups: Sequence[Any] | None = None, **scale: Any) -> TDMatrix:
    """A matrix between nets n0, n1, ..."""
    size = len(values)
    facts = {"model": [f"n{k}" for k in range(size)], "layer": "last", "number": range(size)}
    models = pd.DataFrame({**facts, "group": groups or ["one"] * size})
    floors = np.linspace(0.01, 0.02, size)
    return TDMatrix(np.array(values, dtype=float), models, floors, Scale("td", **scale))


def distances(size: int, seed: int = 0) -> Any:
    points = np.random.default_rng(seed).normal(size=(size, 3))
    return squareform(pdist(points))
