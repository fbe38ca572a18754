"""Pairs per second of the disagreement kernel, against scipy's Hamming distance.

Simulated label codes: 200 models on 10,000 examples, each wrong on a fifth of them. Both methods
give the same counts, which is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from td_ray.measures import distance_matrix

MODELS = 200
EXAMPLES = 10_000

Row = dict[str, Any]


def run() -> list[Row]:
    """Run the benchmark for 2, 10 and 100 classes."""
    return [row for classes in (2, 10, 100) for row in _case(classes)]


def _case(classes: int) -> list[Row]:
    random = np.random.default_rng(0)
    truth = random.integers(classes, size=EXAMPLES)
    wrong = random.random((MODELS, EXAMPLES)) < 0.2
    codes = np.where(wrong, random.integers(classes, size=wrong.shape), truth).astype(np.uint8)
    methods: dict[str, Callable[[], NDArray[np.float64]]] = {
        "td_ray": lambda: distance_matrix("td", "classification", codes, codes),
        "scipy_pdist": lambda: squareform(pdist(codes, "hamming")),
    }
    found = {name: method() for name, method in methods.items()}
    np.testing.assert_allclose(found["td_ray"], found["scipy_pdist"], atol=1e-12)
    return [_measure(name, method, classes) for name, method in methods.items()]


def _measure(name: str, method: Callable[[], Any], classes: int) -> Row:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        method()
        seconds.append(time.perf_counter() - started)
    pairs = MODELS * (MODELS - 1) / 2
    return {
        "benchmark": "pairs",
        "case": f"{MODELS} models x {EXAMPLES} examples",
        "method": name,
        "classes": classes,
        "models": MODELS,
        "pairs_per_second": pairs / min(seconds),
    }
