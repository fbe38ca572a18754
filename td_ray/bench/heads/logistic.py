"""Logistic heads: td-ray's stack, rivals on some of its heads, and a reference for those."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from td_ray.bench.heads.cases import L2, Features, Stack
from td_ray.bench.heads.reference import solve_logistic
from td_ray.bench.heads.rivals import Head, Problem, fit_adam, fit_sklearn, problem
from td_ray.bench.measure import MOST_RUNS, RIVAL_SECONDS, limited, memory_ratio, peak_growth, timed
from td_ray.heads.logistic import LogisticHeads, fit_logistic

Array = NDArray[Any]
Row = dict[str, Any]

# Tried in turn, after scikit-learn's default of 1e-4, until it agrees with the reference as well as
# td-ray does; float64 where float32 no longer sees its gradient fall.
LADDER = (
    ("float32", 1e-5),
    ("float32", 1e-6),
    ("float64", 1e-6),
    ("float64", 1e-8),
)
MATCHING_SECONDS = 45.0


@dataclass(frozen=True)
class Measured:
    """What one method did to a stack, or to the compared heads of it.

    Attributes:
        heads: those compared, in order.
        seconds_per_head: mean over the stack.
        runs: the seconds are those of the fastest of so many.
        threads: with which the method is fastest.
    """

    heads: list[Head]
    seconds_per_head: float
    runs: int
    threads: int


def logistic_rows(
    make_features: Callable[[], Features],
    make_stack: Callable[[Features], Stack],
    peak_flops: float,
) -> list[Row]:
    """One row per method for one case.

    Call it in a fresh process, where the peak of memory is the fit's own. `peak_flops` is the
    machine's, from `matmul_flops`.
    """
    warm_up()
    stack = make_stack(make_features())
    # A stack that takes a minute is fitted once, with all threads.
    threads = torch.get_num_threads() if len(stack.compared) == 1 else None
    ours, extra = fit_td_ray(stack, peak_flops, threads=threads)
    problems = [problem(stack, head) for head in stack.compared]
    sklearn = _one_by_one(stack, problems, fit_sklearn)
    adam = _one_by_one(stack, problems, fit_adam)
    with limited(sklearn.threads):
        reference = _reference(stack, problems, sklearn.heads)
    matched, rung = _matched(stack, problems, reference, ours, sklearn)
    row = partial(_row, stack, reference)
    return [
        row("td_ray", ours) | extra,
        row("sklearn", sklearn),
        row("sklearn_matched", matched) | rung,
        row("torch_adam", adam),
    ]


def _reference(stack: Stack, problems: list[Problem], starts: list[Head]) -> Array:
    """(compared heads, m) predictions of the optimum."""
    predictions = []
    for given, start in zip(problems, starts, strict=True):
        solved = solve_logistic(given.features, given.codes, L2, start.weight, start.intercept)
        predictions.append(Head(*solved).predict(stack.features.test))
    return np.stack(predictions)


def fit_td_ray(
    stack: Stack, peak_flops: float, enough: float = 5.0, threads: int | None = None
) -> tuple[Measured, Row]:
    """Fit the whole stack; the second result is what is measured of td-ray alone.

    `enough` and `threads` are those of `timed`.
    """
    features, weights = torch.from_numpy(stack.features.train), torch.from_numpy(stack.weights)
    codes = torch.from_numpy(stack.codes.copy())
    penalties = torch.full((len(weights),), L2, dtype=torch.float64)
    classes = stack.features.classes

    def fit() -> LogisticHeads:
        return fit_logistic(features, codes, weights, penalties, classes)

    found, growth = peak_growth(lambda: timed(fit, enough, threads))
    fitted = found.result
    heads = [
        Head(fitted.weight[head].numpy(), fitted.intercept[head].numpy()) for head in stack.compared
    ]
    products = 4 * features.numel() * classes * int(fitted.iterations.sum())
    extra = {
        "peak_memory_ratio": memory_ratio(growth, stack.features.train),
        "matmul_share": products / found.seconds / peak_flops,
    }
    return Measured(heads, found.seconds / len(weights), found.runs, found.threads), extra


def warm_up() -> None:
    """Load and start every library on a problem of no size."""
    random = np.random.default_rng(0)
    x = random.standard_normal((64, 4)).astype(np.float32)
    tiny = Problem(x, np.arange(64) % 3, 3)
    fit_sklearn(tiny)
    fit_adam(tiny)
    fit_logistic(
        torch.from_numpy(x),
        torch.from_numpy(tiny.codes),
        torch.ones(2, 64, dtype=torch.float64),
        torch.full((2,), L2, dtype=torch.float64),
        3,
    )


def _one_by_one(
    stack: Stack,
    problems: list[Problem],
    fit: Callable[[Problem], Head],
    threads: int | None = None,
    go_on: Callable[[list[Head]], bool] = lambda heads: True,
) -> Measured:
    """A rival's heads, until `go_on` refuses; seconds are weighted by the shares of the stack."""
    heads: list[Head] = []
    seconds, runs = 0.0, MOST_RUNS
    for given, share in zip(problems, stack.compared.values(), strict=True):
        found = timed(partial(fit, given), RIVAL_SECONDS, threads)
        threads = found.threads  # the first head tells, for all
        heads.append(found.result)
        seconds += share * found.seconds
        runs = min(runs, found.runs)
        if not go_on(heads):
            break
    return Measured(heads, seconds, runs, found.threads)


def _matched(
    stack: Stack, problems: list[Problem], reference: Array, ours: Measured, default: Measured
) -> tuple[Measured | None, Row]:
    """scikit-learn at the first rung of the ladder that agrees no worse than td-ray.

    None where no rung does, or the search took too long; the row says how far it went.
    """
    allowed = _differences(stack, reference, ours.heads)

    def agrees(heads: list[Head]) -> bool:
        return _differences(stack, reference, heads) <= allowed

    found, rung = default, {"precision": "float32", "tolerance": 1e-4}
    started = time.perf_counter()
    for precision, tolerance in LADDER:
        if agrees(found.heads) or time.perf_counter() - started > MATCHING_SECONDS:
            break
        rung = {"precision": precision, "tolerance": tolerance}
        fit = partial(fit_sklearn, precision=precision, tolerance=tolerance)
        found = _one_by_one(stack, problems, fit, default.threads, agrees)
    return (found if agrees(found.heads) else None), rung


def _differences(stack: Stack, reference: Array, heads: list[Head]) -> int:
    """How many predictions of the first heads are not the reference's."""
    predictions = [head.predict(stack.features.test) for head in heads]
    return int((np.stack(predictions) != reference[: len(heads)]).sum())


def _row(stack: Stack, reference: Array, method: str, measured: Measured | None) -> Row:
    row = {
        "benchmark": "heads",
        "case": stack.case,
        "method": method,
        "heads": len(stack.weights),
        "heads_compared": len(stack.compared),
        "runs": None,
        "threads": None,
        "seconds_per_head": None,
        "agreement": None,
        "peak_memory_ratio": None,
    }
    if measured is None:
        return row
    differences = _differences(stack, reference, measured.heads)
    return row | {
        "runs": measured.runs,
        "threads": measured.threads,
        "seconds_per_head": measured.seconds_per_head,
        "agreement": 1 - differences / reference.size,
    }
