"""Benchmarks that anyone can rerun: td-ray and named rivals side by side, at stated quality."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """What was measured.

    Attributes:
        machine: what it was measured on.
        rows: plain mappings; `benchmark` says which one a row belongs to.
        notes: how to read the rows, and what was left out and why.
    """

    machine: Row
    rows: list[Row]
    notes: list[str]


def run_benchmarks(
    name: str,
    features: Path | None = None,
    quick: bool = False,
    minutes: float = 8.0,
    calibration: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Run "features", "heads", "pairs", "measures", "sweep", "costs", "plan" or "all".

    "costs" and "plan" have no rival, and are not among "all": the first measures what plans
    calculate with, the second how right they are.

    Args:
        name: which.
        features: a folder of real features for "heads", see `heads.cases.stored`.
        quick: the smallest cases of "heads" and "sweep" only.
        minutes: no case of "heads" starts later than this.
        calibration: where "costs" writes, and "plan" reads, what work costs on this machine; by
            default where ``td-ray plan`` looks for it.
        progress: is told about each case when it ends.

    Raises:
        InputError: no such benchmark, or features that cannot be used.
    """
    from td_ray.bench import costs, forecasts, heads, measures, pairs, sweep
    from td_ray.bench import features as extraction
    from td_ray.bench.measure import matmul_flops
    from td_ray.costs import own_calibration
    from td_ray.errors import InputError
    from td_ray.registry import closest
    from td_ray.spec import default_cache

    known = ("features", "heads", "pairs", "measures", "sweep", "costs", "plan", "all")
    if name not in known:
        raise InputError(f"no benchmark is called '{name}': {closest(name, known)}")
    found = Findings(machine(), [], [])
    if name in ("features", "all"):
        found.rows.extend(extraction.run(progress))
    if name in ("heads", "all"):
        files = heads.feature_files(features)
        peak_flops = matmul_flops()
        found.machine["matmul_gflops"] = round(peak_flops / 1e9, 1)
        rows, notes = heads.run(peak_flops, files, quick, minutes, progress)
        found.rows.extend(rows)
        found.notes.extend(notes)
    if name in ("pairs", "all"):
        found.rows.extend(pairs.run(progress))
    if name in ("measures", "all"):
        found.rows.extend(measures.run(progress))
    if name in ("sweep", "all"):
        rows, notes = sweep.run(quick, progress)
        found.rows.extend(rows)
        found.notes.extend(notes)
    path = calibration or own_calibration(default_cache())
    if name == "costs":
        rows, notes = costs.run(path, _processor(), progress)
        found.rows.extend(rows)
        found.notes.extend(notes)
    if name == "plan":
        rows, notes = forecasts.run(path, progress)
        found.rows.extend(rows)
        found.notes.extend(notes)
    return found


def machine() -> Row:
    """What the figures were measured on, and how busy it was before."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
