"""Pairs per second of the disagreement of label codes, against what people use for it.

    td_ray            bit planes in a compiled kernel, all cores
    td_ray_cuda       products of one-hot matrices, to the GPU and back; only where there is one
    scipy_pdist       scipy.spatial.distance.pdist(codes, "hamming"), one core: it has no more
    sklearn_pairwise  sklearn.metrics.pairwise_distances(codes, metric="hamming"), all cores
    numpy_loop        (a != b).mean() for each pair

Codes are simulated: 10,000 examples, each model wrong on a fifth of them. All methods give the same
numbers, which is checked. Rivals run on fewer models; a pair costs them the same with more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.bench.measure import in_fresh_process, peak_growth
from td_ray.measures import disagreement
from td_ray.measures.bit_kernels import ROWS_TOGETHER, WORDS_AT_ONCE, count_kernel
from td_ray.measures.bit_planes import WORD, pack

EXAMPLES = 10_000
CLASSES = (2, 10, 100, 1000)
MODELS = {
    "td_ray": 1000,
    "td_ray_cuda": 1000,
    "scipy_pdist": 300,
    "sklearn_pairwise": 300,
    "numpy_loop": 150,
}
GROWTH = (100, 1000, 10_000)
RUNS = 3

Row = dict[str, Any]
Codes = NDArray[np.integer[Any]]
Method = Callable[[Codes], NDArray[np.float64]]


def run(progress: Callable[[str], None] = lambda line: None) -> list[Row]:
    """Compare the methods for 2, 10, 100 and 1,000 classes, then let the zoo grow."""
    rows = []
    for row in (*_comparisons(), *_growth()):
        rows.append(row)
        progress(f"{row['case']}, {row['classes']} classes, {row['method']}")
    return rows


def simulated(models: int, classes: int) -> Codes:
    """(models, EXAMPLES) predicted classes."""
    random = np.random.default_rng(0)
    codes = np.tile(random.integers(classes, size=EXAMPLES), (models, 1))
    codes = codes.astype(np.min_scalar_type(classes - 1))
    for row in codes:
        wrong = random.random(EXAMPLES) < 0.2
        row[wrong] = random.integers(classes, size=wrong.sum())
    return codes


def _methods() -> dict[str, Method]:
    import torch
    from scipy.spatial.distance import pdist, squareform
    from sklearn.metrics import pairwise_distances

    cores = os.cpu_count() or 1
    ours: dict[str, Method] = {"td_ray": lambda codes: disagreement(codes, codes, cores)}
    if torch.cuda.is_available():
        ours["td_ray_cuda"] = lambda codes: disagreement(codes, codes, device="cuda")
    return {
        **ours,
        "scipy_pdist": lambda codes: squareform(pdist(codes, "hamming")),
        "sklearn_pairwise": partial(pairwise_distances, metric="hamming", n_jobs=cores),
        "numpy_loop": _numpy_loop,
    }


def _numpy_loop(codes: Codes) -> NDArray[np.float64]:
    found = np.zeros((len(codes), len(codes)))
    for i, j in combinations(range(len(codes)), 2):
        found[i, j] = found[j, i] = (codes[i] != codes[j]).mean()
    return found


def _comparisons() -> Iterator[Row]:
    for classes in CLASSES:
        codes = simulated(max(MODELS.values()), classes)
        rows, least = [], min(MODELS.values())
        expected = _numpy_loop(codes[:least])
        for name, method in _methods().items():
            given = codes[: MODELS[name]]
            method(given[:8])  # imports and compiles
            seconds, found = _timed(partial(method, given))
            np.testing.assert_allclose(found[:least, :least], expected, atol=1e-12)
            rows.append(_row("methods", name, classes, len(given), seconds))
        scipy = next(row for row in rows if row["method"] == "scipy_pdist")
        for row in rows:
            row["times_scipy"] = row["pairs_per_second"] / scipy["pairs_per_second"]
        rows[0]["share_of_peak"] = _share_of_peak(codes)
        yield from rows


def _timed(method: Callable[[], Any]) -> tuple[float, Any]:
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        found = method()
        seconds.append(time.perf_counter() - started)
    return min(seconds), found


def _row(case: str, method: str, classes: int, models: int, seconds: float) -> Row:
    return {
        "benchmark": "pairs",
        "case": case,
        "method": method,
        "classes": classes,
        "models": models,
        "pairs_per_second": models * (models - 1) / 2 / seconds,
        "times_scipy": None,
        "share_of_peak": None,
        "peak_memory_bytes": None,
    }


def _share_of_peak(codes: Codes) -> float:
    """The rate of one thread, as a share of the kernel's on words that never leave L1."""
    seconds, _ = _timed(lambda: disagreement(codes, codes, 1))
    pairs = len(codes) * (len(codes) - 1) / 2
    planes = pack(codes[:1]).shape[1]
    return pairs * -(-EXAMPLES // WORD) / seconds / _peak(planes)


def _peak(planes: int, calls: int = 3000) -> float:
    """Words of a pair per second, all planes together, from L1; less what a call costs."""
    words = WORDS_AT_ONCE // planes // 2
    rows = np.ones((ROWS_TOGETHER, planes, words), dtype=np.uint64)
    counts = np.zeros((ROWS_TOGETHER, ROWS_TOGETHER), dtype=np.int32)
    kernel = count_kernel(planes)

    def repeat(other: NDArray[np.uint64]) -> None:
        for _ in range(calls):
            kernel(rows, other, counts[:, : len(other)])

    full, _ = _timed(partial(repeat, rows.copy()))
    empty, _ = _timed(partial(repeat, rows[:0]))
    return calls * ROWS_TOGETHER**2 * words / (full - empty)


def _growth() -> Iterator[Row]:
    for models in GROWTH:
        yield in_fresh_process(partial(_grown, models))


def _grown(models: int) -> Row:
    codes = simulated(models, 10)
    disagreement(codes[:8], codes[:8])
    cores = os.cpu_count() or 1
    started = time.perf_counter()
    _, growth = peak_growth(lambda: disagreement(codes, codes, cores))
    row = _row("growth", "td_ray", 10, models, time.perf_counter() - started)
    return {**row, "peak_memory_bytes": growth}
