"""Seconds per head, and how often the heads' predictions are those of the optimum.

    td_ray           one call of `fit_logistic` for the whole stack of heads
    sklearn          LogisticRegression as it comes, a call per head
    sklearn_matched  the same, at the first tolerance that agrees no worse than td_ray
    torch_adam       a torch layer and Adam, 20 epochs, a head after the other
    td_ray_ridge, sklearn_ridge, sklearn_ridge_all_targets   see `ridge`

All fit the same loss at the same penalty, on float32 features. Agreement is the share of held-out
predictions equal to those of a reference solved to 1e-10 in float64 (`reference`). Rivals fit three
heads of a stack, or one half where a head costs tens of seconds; their seconds per head are
weighted as the stack is composed. Every case has a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from td_ray.bench.heads.cases import Features, digits, seeds_stack, stored, synthetic, targets_stack
from td_ray.bench.heads.growth import growth_rows
from td_ray.bench.heads.logistic import MATCHING_SECONDS, logistic_rows
from td_ray.bench.heads.ridge import ridge_rows
from td_ray.bench.measure import in_fresh_process
from td_ray.errors import InputError

Row = dict[str, Any]

REAL = ("r8-wordllama", "fashion-mobilenet")

NOTES = (
    "agreement: share of held-out predictions equal to those of the optimum (float64, max "
    "|gradient| 1e-10); ridge: within 1e-3 of their deviation",
    "faster: seconds per head of scikit-learn as it comes, over those of the method",
    "sklearn_matched: '-' where no tolerance down to 1e-8 in float64 agreed as well as td_ray, or "
    f"{MATCHING_SECONDS:.0f} s of trying did not find one",
    "memory: peak growth of the process during the fit, over the size of the feature matrix; '-' "
    "where that is below 5 MB",
    "product: share of the machine's float32 product of two 4096 x 4096 that the fit reaches",
    "heads: those compared, which rivals fit; td-ray fits the whole stack",
    "s/head: the fit alone, fastest of up to three runs after a warm-up, with one thread or all, "
    "whichever is faster for the method; a rival's halves count as often as the stack has them",
)


def run(
    peak_flops: float,
    files: Sequence[Path] = (),
    quick: bool = False,
    minutes: float = float("inf"),
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[list[Row], list[str]]:
    """Run all cases; returns rows, and notes on how to read them and what was left out.

    Args:
        peak_flops: of the machine, from `matmul_flops`.
        files: real features, see `cases.stored`.
        quick: digits only.
        minutes: no case starts later than this.
        progress: is told about each case when it ends.

    Raises:
        InputError: a file is not as it must be.
    """
    jobs = _jobs(files, peak_flops, quick)
    rows: list[Row] = []
    late: list[str] = []
    begun = time.perf_counter()
    for number, (name, job) in enumerate(jobs.items(), 1):
        started = time.perf_counter()
        if started - begun >= 60 * minutes:
            late.append(name)
            continue
        rows += in_fresh_process(job)
        seconds = time.perf_counter() - started
        progress(f"{number} of {len(jobs)}: {name}, {seconds:.0f} s")
    notes = [*NOTES, "left out by --quick: all but the digits"] if quick else [*NOTES]
    notes += [] if quick else _left_out(files)
    if late:
        notes.append(f"left out, {minutes:g} minutes were over (--minutes): {'; '.join(late)}")
    return rows, notes


def feature_files(folder: Path | None) -> list[Path]:
    """The files of real features in a folder, smallest first.

    Raises:
        InputError: there are none.
    """
    if folder is None:
        return []
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_size)
    if not files:
        raise InputError(
            f"--features {folder}: no npz file there; jobs/bench_features.py makes two"
        )
    return files


def _left_out(files: Sequence[Path]) -> list[str]:
    """A line about the real features that were not there."""
    missing = [name for name in REAL if name not in {file.stem for file in files}]
    if not missing:
        return []
    return [
        f"left out, no such file among --features: {', '.join(missing)} "
        "(make them with jobs/bench_features.py)"
    ]


def _jobs(
    files: Sequence[Path], peak_flops: float, quick: bool
) -> dict[str, Callable[[], list[Row]]]:
    """What each process does, by a name for the progress; what takes longest comes last."""

    def stack(make: Callable[[], Features]) -> Callable[[], list[Row]]:
        return partial(logistic_rows, make, seeds_stack, peak_flops)

    def made(width: int, classes: int) -> Callable[[], Features]:
        return partial(synthetic, classes, width)

    jobs = {"digits": stack(digits)}
    if quick:
        return jobs | {"ridge, digits": partial(ridge_rows, digits)}
    jobs |= {file.stem: stack(partial(stored, file)) for file in files}
    jobs |= {
        "ridge, d 256": partial(ridge_rows, made(256, 10)),
        "ridge, d 1,280": partial(ridge_rows, made(1280, 10)),
        "growth": growth_rows,
        "family of targets": partial(logistic_rows, made(256, 10), targets_stack, peak_flops),
    }
    for classes in (2, 10, 100):
        for width in (256, 1280):
            jobs[f"synthetic, d {width:,}, C {classes}"] = stack(made(width, classes))
    return jobs
