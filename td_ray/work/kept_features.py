"""Features that are kept for measures of them: as parts, and prepared for comparisons.

A part holds the features of one representation on the samples that a data set has drawn. What a
measure does once for each model (whitening, ranks, neighbours) is done when a comparison first
asks for it, and held as long as memory allows.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.features import FeatureMeasure
from td_ray.results.parts import Parts
from td_ray.results.schemas import FEATURE_PART

State = Any
"""What a measure makes of the features of one model; says in ``nbytes`` what it takes."""


def feature_part(features: NDArray[Any]) -> pa.Table:
    """The part of (n, d) features."""
    little = np.ascontiguousarray(features, dtype=features.dtype.newbyteorder("<"))
    rows = [row.tobytes() for row in little]
    encoding = pa.repeat(pa.scalar(features.dtype.name), len(rows))
    return pa.Table.from_arrays([encoding, pa.array(rows, pa.binary())], schema=FEATURE_PART)


def features_of_part(part: pa.Table) -> NDArray[Any]:
    """(n, d) features, the reverse of ``feature_part``."""
    encoding = np.dtype(part["encoding"][0].as_py()).newbyteorder("<")
    rows = b"".join(part["features"].to_pylist())
    return np.frombuffer(rows, dtype=encoding).reshape(part.num_rows, -1)


class PreparedFeatures:
    """What measures make of kept features, those that were used last; within ``memory`` bytes."""

    def __init__(self, parts: Parts, memory: int) -> None:
        self._parts, self._memory = parts, memory
        self._held: OrderedDict[tuple[str, FeatureMeasure[State], int], State | InputError]
        self._held = OrderedDict()

    def get(self, unit: str, measure: FeatureMeasure[State], examples: int) -> State | InputError:
        """The state of a unit of features on its first examples; the error if it has none."""
        key = (unit, measure, examples)
        if key not in self._held:
            try:
                self._held[key] = measure.prepare(self._read(unit)[:examples])
            except InputError as error:  # features that this measure cannot compare
                self._held[key] = error
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(map(_bytes, self._held.values())) > self._memory:
            self._held.popitem(last=False)
        return self._held[key]

    def _read(self, unit: str) -> NDArray[Any]:
        return features_of_part(self._parts.read_features(unit))

    def units_at_once(self, examples: int) -> int:
        """How many states are within the memory, two at least: none is larger than a kernel."""
        return max(2, self._memory // (np.dtype(np.float64).itemsize * examples**2))


def _bytes(state: State | InputError) -> int:
    return 0 if isinstance(state, InputError) else int(state.nbytes)
