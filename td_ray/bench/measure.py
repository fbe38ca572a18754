"""Seconds, memory, and the speed of matrix products."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

MOST_RUNS = 3
# A rival's fit of one head is repeated while its runs have taken less.
RIVAL_SECONDS = 1.0
MATRIX_SIZE = 4096
MEASURABLE_BYTES = 5 * 10**6

T = TypeVar("T")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """What a method returned, and how long it took.

    Attributes:
        result: of its last run.
        seconds: of its fastest run.
        runs: with this number of threads.
        threads: with which it was fastest.
    """

    result: T
    seconds: float
    runs: int
    threads: int


def timed(method: Callable[[], T], enough: float = 5.0, threads: int | None = None) -> Timed[T]:
    """Time a method with one thread and with all, and again with what was faster.

    It runs three times so, or fewer when `enough` seconds are over. Small products are slower on
    two threads than on one, and on a busy machine all are, by a factor of up to ten: a comparison
    at a fixed number of threads would be one of thread pools. `threads` says which number is known
    to be faster. Warm the method up before.
    """
    counts = {1, torch.get_num_threads()} if threads is None else {threads}
    first = {count: _run(method, count) for count in sorted(counts)}
    fastest = min(first, key=lambda count: first[count][1])
    result, seconds = first[fastest]
    taken = [seconds]
    while len(taken) < MOST_RUNS and sum(taken) < enough:
        result, seconds = _run(method, fastest)
        taken.append(seconds)
    return Timed(result, min(taken), len(taken), fastest)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """So many threads, for torch and for what numpy, scipy and scikit-learn call."""
    usual = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(usual)


def _run(method: Callable[[], T], threads: int) -> tuple[T, float]:
    with limited(threads):
        started = time.perf_counter()
        result = method()
        return result, time.perf_counter() - started


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
    return 2 * MATRIX_SIZE**3 / timed(lambda: matrix @ matrix).seconds
