"""What a sweep gains or loses by going through Ray, against the same work without it.

Sweeps of about 30, 120 and 300 seconds: what fitting their heads alone takes on all cores. The
number of models follows from what a few of them take. `ways` says how a sweep is run: through Ray,
and in the two ways to use all cores without it. Processes are timed from start to exit, and all
ways must give the same heads, predictions and pairs, which is checked.

    efficiency   seconds of the faster way without Ray, over the seconds through Ray

An empty unit is one head on 32 rows of two features. What one more of them costs is the slope
between zoos of two sizes, so that what a run costs once is not in it: planning, a trial, features,
parts, tables.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from td_ray.bench.sweep.ways import timed_sweep
from td_ray.bench.sweep.zoo import Zoo
from td_ray.results.tables import open_results

REAL = {"samples": 5000, "width": 256, "classes": 50, "coarser": 3, "seeds": 10}
EMPTY = {"samples": 40, "width": 2, "classes": 2, "coarser": 0, "seeds": 0}
SECONDS = (30, 120, 300)
EMPTY_MODELS = (100, 600)
EMPTY_WAYS = {"ray": "ray", "inline": "inline_threads"}
INLINE = ("inline_shares", "inline_threads")
HOPELESS = 1.5
"""A way that takes so many times as long as the fastest is not tried on longer sweeps."""

MOST_TIES = 1e-4
"""Share of the predictions that may differ: those of classes that are nearly tied."""

MOST_OF_A_PAIR = 5e-3
"""By so much a discrepancy or a score may differ then, of a thousand examples or more."""

NOTES = (
    "case: what the heads take on all cores, as a few of them foretell",
    "sweep: seconds from the start of a way's first process to the exit of its last, one run each",
    "efficiency: seconds of the faster way without Ray, over those of the method",
    "on a busy machine these figures mean little: Ray's workers give way to others (niceness 15), "
    "and threads of one fit wait for each other",
    "s/unit: what one more empty unit takes, from planning to the tables",
)

Row = dict[str, Any]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """One sweep: how, of how many models, and the seconds from start to exit."""

    method: str
    models: int
    seconds: float


def run(quick: bool = False, progress: Progress = lambda line: None) -> tuple[list[Row], list[str]]:
    """Run all sweeps; returns rows, and notes on how to read them.

    Args:
        quick: the shortest sweep, and no empty units.
        progress: is told about each sweep when it ends.

    Raises:
        AssertionError: two ways give different results.
    """
    with TemporaryDirectory(prefix="td-ray-bench-") as folder:
        rows, notes = _real_work(Path(folder), SECONDS[:1] if quick else SECONDS, progress)
    if quick:
        return rows, [*NOTES, *notes, "left out by --quick: longer sweeps, empty units"]
    with TemporaryDirectory(prefix="td-ray-bench-") as folder:
        return rows + _empty_units(Path(folder), progress), [*NOTES, *notes]


def _real_work(
    folder: Path, lengths: Sequence[int], progress: Progress
) -> tuple[list[Row], list[str]]:
    zoo, cores = Zoo(folder / "zoo", **REAL), os.cpu_count() or 1
    per_model = _seconds_per_model(zoo, cores, folder / "first")
    methods, rows, notes = ["ray", *INLINE], [], []
    for seconds in lengths:
        models = cores * max(1, math.ceil(seconds / per_model / cores))
        zoo.fill(models)
        sweeps = _same_sweeps(zoo, models, methods, folder / str(seconds), progress)
        best = min(sweep.seconds for sweep in sweeps if sweep.method in INLINE)
        for sweep in sweeps:
            row = _row(f"{seconds} s", sweep)
            rows.append({**row, "efficiency": best / sweep.seconds})
            if sweep.method in INLINE and sweep.seconds > HOPELESS * best:
                methods.remove(sweep.method)
                notes.append(f"left out beyond {seconds} s, as hopeless: {sweep.method}")
    return rows, notes


def _seconds_per_model(zoo: Zoo, cores: int, folder: Path) -> float:
    """Seconds that the heads of one more model take, when every core has models of its own."""
    models = 2 * cores
    zoo.fill(models)
    _, output = timed_sweep("inline_shares", zoo, models, cores, folder)
    timings = open_results(output).table("timings")
    return float(timings.loc[timings["stage"] == "heads", "seconds"].sum()) / models / cores


def _same_sweeps(
    zoo: Zoo, models: int, methods: Sequence[str], folder: Path, progress: Progress
) -> list[Sweep]:
    """Sweep the same models in several ways, whose results must be the same."""
    folder.mkdir()
    sweeps: list[Sweep] = []
    outputs: list[Path] = []
    for method in methods:
        seconds, output = timed_sweep(method, zoo, models, os.cpu_count() or 1, folder / method)
        sweeps.append(Sweep(method, models, seconds))
        outputs.append(output)
        require_same(outputs[0], output)
        progress(f"sweep, {models:,} models, {method}, {seconds:.0f} s")
    rmtree(folder)
    return sweeps


def require_same(output: Path, other: Path) -> None:
    """Refuse two outputs whose heads, predictions or pairs differ by more than rounding.

    Sums are rounded in the order of threads, so that two classes that are nearly tied may change.

    Raises:
        AssertionError: they do.
    """
    first, second = open_results(output), open_results(other)
    one, two = first.predictions(), second.predictions()
    labels = [np.frombuffer(b"".join(each["predictions"]), np.uint8) for each in (one, two)]
    share = float(np.mean(labels[0] != labels[1]))
    if share > MOST_TIES:
        raise AssertionError(f"{share:.2%} of the predictions differ")
    pd.testing.assert_frame_equal(one.drop(columns="predictions"), two.drop(columns="predictions"))
    pd.testing.assert_frame_equal(first.pairs(), second.pairs(), rtol=0, atol=MOST_OF_A_PAIR)
    heads, others = first.heads(), second.heads()
    np.testing.assert_allclose(heads["loss"], others["loss"], rtol=1e-6)
    scores = ["train_score", "score"]
    np.testing.assert_allclose(heads[scores], others[scores], atol=MOST_OF_A_PAIR)
    rounded = [*scores, "loss", "gradient_norm", "iterations"]
    pd.testing.assert_frame_equal(heads.drop(columns=rounded), others.drop(columns=rounded))


def _empty_units(folder: Path, progress: Progress) -> list[Row]:
    zoo = Zoo(folder / "zoo", **EMPTY)
    zoo.fill(max(EMPTY_MODELS))
    rows = []
    for method, way in EMPTY_WAYS.items():
        sweeps = []
        for models in EMPTY_MODELS:
            cores = os.cpu_count() or 1 if method == "ray" else 1
            seconds, _ = timed_sweep(way, zoo, models, cores, folder / f"{method}-{models}")
            sweeps.append(Sweep(method, models, seconds))
            progress(f"sweep, {models:,} empty units, {method}, {seconds:.0f} s")
        few, many = sweeps
        slope = (many.seconds - few.seconds) / (many.models - few.models)
        rows += [_row("empty", few), {**_row("empty", many), "seconds_per_unit": slope}]
    return rows


def _row(case: str, sweep: Sweep) -> Row:
    return {
        "benchmark": "sweep",
        "case": case,
        "method": sweep.method,
        "models": sweep.models,
        "seconds": sweep.seconds,
        "efficiency": None,
        "seconds_per_unit": None,
    }
