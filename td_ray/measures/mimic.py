"""The directed discrepancy: how far a stand-in is from the head that it is to reproduce.

    mimic(F -> F') = d( h(F), h''(F') )

h'' is fitted on F' to reproduce, on the training split, what the head h on F predicts: its hard
labels, or its values. d is the task's distance, on the evaluation split. It is not symmetric, and
mimic(F -> F) is not zero: it is the floor of F, what a head loses by being fitted to itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.measures import DIFFERENT, Measure, find_measure, value_distance
from td_ray.registry import MEASURES

MIMIC = "mimic"


def stand_in_distance(
    predicted: NDArray[Any], reproduced: NDArray[Any], distance: str | None
) -> NDArray[np.float64]:
    """Distance of each head from its stand-in.

    Args:
        predicted: (N, n) codes, or values less the training mean of the target.
        reproduced: (N, n) the same of the stand-ins.
        distance: of values: "cosine", "mean" or "none"; None for codes.

    Returns:
        (N,) shares of differing codes or distances of values; NaN where one has no direction.
    """
    if distance is None:
        return np.asarray((predicted != reproduced).mean(axis=1))
    pairs = zip(predicted[:, None], reproduced[:, None], strict=True)
    return np.array([value_distance(a, b, kind=distance)[0, 0] for a, b in pairs])


MEASURES.register(MIMIC)(
    Measure(
        name=MIMIC,
        direction=DIFFERENT,
        source="td-ray, with the distances of td",
        forms=find_measure("td").forms,
        itself=None,
        is_symmetric=False,
        needs=frozenset({"stand-ins"}),
    )
)
