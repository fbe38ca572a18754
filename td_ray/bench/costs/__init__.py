"""Measure what work costs on this machine, and write the calibration that plans use.

    networks   forward passes of torchvision's architectures, with random weights
    fits       heads of all kinds, in units as a run has them
    pairs      all measures, in tiles as a run has them
    runs       what a run through Ray costs that does nothing

All but the last is measured in as many processes as there are cores, of one thread each: as trials
run, which share the machine's memory with each other.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from td_ray.bench.costs import fits, networks, pairs, runs
from td_ray.bench.measure import limited
from td_ray.costs import Calibration, Counts, Device, Prices, fit_prices

MOST_PROCESSES = 16
NOTES = (
    "seconds of a case: the mean of all processes, of one thread each; with a GPU, of one process",
    "off by: the prices that were fitted to all cases of a kind, over what this case took",
)

T = TypeVar("T")
Row = dict[str, Any]
Progress = Callable[[str], None]
Measured = list[tuple[str, str, Counts, float]]
"""Kind, case, what it consists of, and the seconds that it took."""


def run(path: Path, processor: str, progress: Progress) -> tuple[list[Row], list[str]]:
    """Measure everything and write the calibration.

    Args:
        path: where to.
        processor: of this machine, as people call it.
    """
    rows: list[Row] = []

    def priced(found: Measured) -> dict[str, Prices]:
        prices = {kind: _prices(found, kind) for kind in dict.fromkeys(each[0] for each in found)}
        rows.extend(_rows(found, prices))
        return prices

    cores = _everywhere(partial(networks.measure, "cpu"))
    load = float(np.mean(_everywhere_in_folders(networks.load_seconds)))
    progress("costs, forward passes on cores")
    fitted, array = _fits("cpu")
    progress("costs, fits on cores")
    several = _everywhere_in_folders(pairs.measure)
    compared = _mean([found.cases for found in several])
    progress("costs, pairs")
    cpu = Device(networks=priced(cores), heads=priced(fitted))
    measures = priced(compared)
    gpu = None
    if torch.cuda.is_available():
        passes, heads = networks.measure("cuda"), _with_folder(partial(fits.measure, "cuda"))[0]
        gpu = Device(networks=priced(passes), heads=priced(heads))
        progress("costs, a GPU")
    fixed = runs.measure(progress)
    rows.extend(
        {"benchmark": "costs", "kind": name, "seconds": getattr(fixed, name)}
        for name in ("start", "start_ray", "trial", "unit")
    )
    Calibration(
        machine=f"{processor}, {os.cpu_count()} cores",
        measured=date.today().isoformat(),
        cpu=cpu,
        gpu=gpu,
        gpu_name="" if gpu is None else torch.cuda.get_device_name(),
        measures=measures,
        array=array,
        load=load,
        stored=float(np.mean([found.stored for found in several])),
        pair_bytes=several[0].row_bytes,
        **vars(fixed),
    ).write(path)
    return rows, [*NOTES, f"written to {path}: 'td-ray plan' uses it"]


def _fits(device: str) -> tuple[Measured, float]:
    """Of all processes: the mean of every case, and of reading arrays."""
    several = _everywhere_in_folders(partial(fits.measure, device))
    return _mean([found for found, _ in several]), float(np.mean([array for _, array in several]))


def _everywhere(job: Callable[[], Measured]) -> Measured:
    with _pool() as pool:
        return _mean([each.result() for each in [pool.submit(job) for _ in range(_processes())]])


def _everywhere_in_folders(job: Callable[[Path], T]) -> list[T]:
    with _pool() as pool:
        waiting = [pool.submit(_with_folder, job) for _ in range(_processes())]
        return [each.result() for each in waiting]


def _processes() -> int:
    return min(os.cpu_count() or 1, MOST_PROCESSES)


def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(_processes(), context)


def _with_folder(job: Callable[[Path], T]) -> T:
    with TemporaryDirectory(prefix="td-ray-bench-") as folder, limited(1):
        return job(Path(folder))


def _mean(several: list[Measured]) -> Measured:
    """The same cases, with the mean of their seconds."""
    return [
        (*cases[0][:3], float(np.mean([seconds for *_, seconds in cases])))
        for cases in zip(*several, strict=True)
    ]


def _prices(found: Measured, kind: str) -> Prices:
    chosen = [(work, seconds) for name, _, work, seconds in found if name == kind]
    return fit_prices(*zip(*chosen, strict=True))


def _rows(found: Measured, prices: dict[str, Prices]) -> list[Row]:
    return [
        {
            "benchmark": "costs",
            "kind": kind,
            "case": case,
            "seconds": seconds,
            "off_by": prices[kind].seconds(work) / seconds,
        }
        for kind, case, work, seconds in found
    ]
