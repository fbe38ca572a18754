"""Seconds, memory, and the speed of matrix products."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray

MOST_RUNS = 3
MATRIX_SIZE = 4096
MEASURABLE_BYTES = 5 * 10**6

T = TypeVar("T")


def timed(method: Callable[[], T], enough: float = 5.0) -> tuple[T, float, int]:
    """What a method returns, the seconds of its fastest run, and the number of runs.

    It runs three times, or fewer when `enough` seconds are over. Warm it up before.
    """
    seconds: list[float] = []
    while len(seconds) < MOST_RUNS and sum(seconds) < enough:
        started = time.perf_counter()
        result = method()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds), len(seconds)


def in_fresh_process(job: Callable[[], T]) -> T:
    """Call a function of a module in a new process, where no memory is left over from before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(job).result()


def peak_growth(method: Callable[[], T]) -> tuple[T, int | None]:
    """What a method returns, and by how many bytes the resident memory grew at its peak.

    The growth is None where Linux's /proc is missing.
    """
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return method(), None
    reset.write_text("5")  # resets the peak to what is resident now
    before = _resident("VmRSS")
    result = method()
    return result, _resident("VmHWM") - before


def memory_ratio(growth: int | None, matrix: NDArray[Any]) -> float | None:
    """Growth as a multiple of a matrix; None for one that is small beside the libraries' own."""
    if growth is None or matrix.nbytes < MEASURABLE_BYTES:
        return None
    return growth / matrix.nbytes


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def matmul_flops() -> float:
    """Floating-point operations per second of torch's float32 product of two 4096 x 4096."""
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    matrix @ matrix
    _, seconds, _ = timed(lambda: matrix @ matrix)
    return float(2 * MATRIX_SIZE**3 / seconds)
