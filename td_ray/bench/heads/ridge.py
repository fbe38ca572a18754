"""Ridge heads: 32 targets at ten penalties in one call, against RidgeCV with the same grid.

The targets are random linear teachers on the features plus noise of half their size. Two
predictions agree when they differ by less than a thousandth of the deviation of the reference's
predictions; a fit is compared with the reference at its own penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

from td_ray.bench.heads.cases import HEADS, Features
from td_ray.bench.heads.reference import solve_ridge
from td_ray.bench.heads.rivals import fit_ridge_cv
from td_ray.bench.measure import RIVAL_SECONDS, Timed, memory_ratio, peak_growth, timed
from td_ray.heads.ridge import fit_ridge

Array = NDArray[Any]
Row = dict[str, Any]

PENALTIES = np.array([10.0**power for power in range(-6, 4)])
COMPARED = 3
NOISE = 0.5
CLOSE = 1e-3


def ridge_rows(make_features: Callable[[], Features]) -> list[Row]:
    """One row per method for one case; seconds per target and penalty.

    Call it in a fresh process, where the peak of memory is the fit's own.
    """
    _warm_up()
    features = make_features()
    train, test, targets = features.train, features.test, linear_targets(features.train)
    ours, growth = peak_growth(lambda: timed(lambda: fit_td_ray(train, targets)))
    reference = solve_ridge(train, targets, PENALTIES, test)

    def chosen(models: list[RidgeCV]) -> float:
        """Agreement of the fits at the penalties that they chose."""
        penalties = np.ravel([model.alpha_ for model in models]) / len(train)
        index = np.abs(np.log(penalties[:, None] / PENALTIES)).argmin(1)
        predictions = np.column_stack([model.predict(test) for model in models]).T
        return agreement(predictions, reference[index, np.arange(len(index))])

    single, threads = [], None
    for target in targets.T[:COMPARED]:
        fit = partial(fit_ridge_cv, train, target, PENALTIES)
        single.append(timed(fit, RIVAL_SECONDS, threads))
        threads = single[0].threads
    together = timed(partial(fit_ridge_cv, train, targets, PENALTIES))
    row = partial(_row, features)
    ratio = memory_ratio(growth, train)
    return [
        row("td_ray_ridge", [ours], HEADS, agreement(predict(ours.result, test), reference), ratio),
        row("sklearn_ridge", single, COMPARED, chosen([each.result for each in single])),
        row("sklearn_ridge_all_targets", [together], HEADS, chosen([together.result])),
    ]


def linear_targets(train: Array) -> Array:
    """(n, 32) float32 targets: what random linear teachers say, and noise."""
    random = np.random.default_rng(2)
    targets = train @ random.standard_normal((train.shape[1], HEADS))
    targets /= targets.std(0)
    targets += NOISE * random.standard_normal(targets.shape)
    return np.asarray(targets, dtype=np.float32)


def fit_td_ray(train: Array, targets: Array) -> tuple[Array, Array]:
    """(P, m, d) weights and (P, m) intercepts of the full split."""
    heads = fit_ridge(
        torch.from_numpy(train),
        torch.from_numpy(targets),
        torch.ones(1, len(train), dtype=torch.float64),
        torch.from_numpy(PENALTIES),
    )
    return heads.weight[0].numpy(), heads.intercept[0].numpy()


def predict(heads: tuple[Array, Array], test: Array) -> Array:
    """(P, m, rows of test)."""
    weight, intercept = heads
    return np.asarray(weight @ test.T.astype(np.float64) + intercept[:, :, None])


def agreement(predictions: Array, reference: Array) -> float:
    """Share of predictions close to the reference's; both (..., rows)."""
    close = CLOSE * reference.std(-1, keepdims=True)
    return float((np.abs(predictions - reference) < close).mean())


def _warm_up() -> None:
    """Load and start both libraries on a problem of no size."""
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    fit_td_ray(x, x)
    fit_ridge_cv(x, x[:, 0], PENALTIES)


def _row(
    features: Features,
    method: str,
    fits: Sequence[Timed[Any]],
    targets: int,
    agrees: float,
    memory: float | None = None,
) -> Row:
    """The row of a method that fitted so many targets in one or more calls."""
    rows, width = features.train.shape
    penalties = len(PENALTIES)
    return {
        "benchmark": "heads",
        "case": f"ridge, {features.name}, n {rows:,}, d {width:,}, {HEADS} targets, "
        f"{penalties} penalties",
        "method": method,
        "heads": HEADS * penalties,
        "heads_compared": targets * penalties,
        "runs": min(fit.runs for fit in fits),
        "threads": fits[0].threads,
        "seconds_per_head": sum(fit.seconds for fit in fits) / (targets * penalties),
        "agreement": agrees,
        "peak_memory_ratio": memory,
    }
