"""Pairs from features: prepare the models of a tile, compare them, give the tile's part.

No head is fitted, so there are no seeds, and neither noise floors nor standard errors. It needs no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.features import FeatureMeasure, find_feature_measure
from td_ray.plan.tiles import Member, Tile
from td_ray.results.schemas import pair_part
from td_ray.work.kept_features import PreparedFeatures


def compare_features(tile: Tile, examples: int, prepared: PreparedFeatures) -> pa.Table:
    """The wanted pairs of a tile as rows of its part.

    Args:
        tile: whose members are units of features.
        examples: on how many of the samples that were drawn.
        prepared: gives what the measure makes of each unit.
    """
    measure, wanted = find_feature_measure(tile.measure), tile.wanted
    values = np.full(wanted.shape, np.nan)
    errors: dict[int, str] = {}
    size = prepared.units_at_once(examples) // 2
    for rows in slices(len(tile.rows), size):
        for columns in slices(len(tile.columns), size):
            if wanted[rows, columns].any():
                sides = tile.rows[rows], tile.columns[columns]
                values[rows, columns] = _values(measure, *sides, examples, prepared, errors)
    a, b = np.nonzero(wanted)
    first, second = (np.array([each.number for each in side]) for side in (tile.rows, tile.columns))
    return pair_part(
        {
            "a": first[a],
            "b": second[b],
            "value": values[a, b],
            "n_examples": np.full(len(a), examples),
            "n_seeds": np.zeros(len(a), dtype=np.int32),
            "reason": [_reason(i, j, errors) for i, j in zip(first[a], second[b], strict=True)],
        }
    )


def _reason(a: int, b: int, errors: Mapping[int, str]) -> str | None:
    """Why two representations have no value: parts know their numbers, tables their names."""
    sides = {"model_a": errors.get(a), "model_b": errors.get(b)}
    return "; ".join(f"{side}: {error}" for side, error in sides.items() if error) or None


def slices(length: int, size: int) -> list[slice]:
    """Consecutive slices of a length, of a size or, the last one, less."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _values(
    measure: FeatureMeasure[Any],
    rows: Sequence[Member],
    columns: Sequence[Member],
    examples: int,
    prepared: PreparedFeatures,
    errors: dict[int, str],
) -> NDArray[np.float64]:
    """(rows, columns) values; NaN for members that the measure cannot compare, with their error."""
    states = {}
    for member in (*rows, *columns):
        state = prepared.get(member.unit, measure, examples)
        if isinstance(state, InputError):
            errors[member.number] = str(state)
        else:
            states[member] = state
    a, b = ([i for i, each in enumerate(side) if each in states] for side in (rows, columns))
    first, second = [states[rows[i]] for i in a], [states[columns[j]] for j in b]
    found = np.full((len(rows), len(columns)), np.nan)
    if a and b:
        same = rows == columns  # then half of the pairs is computed
        found[np.ix_(a, b)] = measure.compare(first, first if same else second)
    return found
