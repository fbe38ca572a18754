"""Units of heads of all kinds on simulated features: read, scaled, fitted, predicted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from td_ray.bench.costs.plans import extract_all, planned
from td_ray.bench.sweep.zoo import Zoo
from td_ray.costs import Counts
from td_ray.plan import Plan, fits_of
from td_ray.registry import HEAD_KINDS
from td_ray.results.tables import open_results
from td_ray.spec import Experiment
from td_ray.sweep import run

ZOOS = (
    {"samples": 5000, "width": 256, "classes": 50, "coarser": 1, "seeds": 10},
    {"samples": 1800, "width": 64, "classes": 10, "coarser": 1, "seeds": 5},
    {"samples": 6000, "width": 1280, "classes": 10, "coarser": 1, "seeds": 3},
    {"samples": 5000, "width": 512, "classes": 100, "coarser": 1, "seeds": 2},
    {"samples": 1000, "width": 32, "classes": 2, "coarser": 0, "seeds": 2},
    {"samples": 5000, "width": 2048, "classes": 20, "coarser": 0, "seeds": 1},
)
TRAINED = ({"epochs": 10, "batch_size": 256}, {"epochs": 10, "batch_size": 64})
"""Trained heads need not be trained to the end to tell what a step costs."""


def measure(device: str, folder: Path) -> tuple[list[tuple[str, str, Counts, float]], float]:
    """Cases, and the seconds that reading 1e9 bytes of features takes."""
    cases: list[tuple[str, str, Counts, float]] = []
    read, size = 0.0, 0
    for number, sizes in enumerate(ZOOS):
        place = folder / str(number)
        place.mkdir()
        zoo = Zoo(place / "zoo", **sizes)
        zoo.fill(1)
        path = zoo.write_experiment(place / "output", range(1))
        experiment = Experiment.load(path, _settings(device, place))
        plan = planned(experiment)
        seconds, more = extract_all(plan, experiment)
        read, size = read + seconds, size + more
        run(experiment, backend="inline")
        cases += _units(planned(experiment), experiment, sizes["width"])
    return cases, read / size * 1e9


def _settings(device: str, folder: Path) -> list[str]:
    heads: list[str] = []
    for kind in HEAD_KINDS.names():
        trained = TRAINED if kind in ("linear", "mlp") else ({},)
        for number, options in enumerate(trained):
            words = [f"{key}: {value}" for key, value in options.items()]
            head = [f"kind: {kind}", f"name: {kind}-{number}", "targets: [classification]", *words]
            heads.append(f"{{{', '.join(head)}}}")
    settings = [f"heads=[{', '.join(heads)}]", f"resources.cache={folder / 'cache'}"]
    return [*settings, f"resources.device={device}"]


def _units(
    plan: Plan, experiment: Experiment, width: int
) -> Iterator[tuple[str, str, Counts, float]]:
    results = open_results(experiment.output_folder)
    heads: Any = results.heads()
    taken = heads.groupby(["task", "head"])["iterations"].mean()
    timings: Any = results.table("timings")
    seconds = dict(zip(timings["unit"], timings["seconds"], strict=True))
    for unit in plan.units:
        outputs = len(unit.task.classes)
        iterations = float(taken[unit.task.name, unit.head.name])
        size = (unit.task.n_train, width, outputs)
        work = unit.head.counts(*size, fits_of(unit), iterations)
        case = f"{np.prod(size[:1])} x {width}, {outputs} classes, {fits_of(unit)} fits"
        yield unit.head.kind, case, work, float(seconds[str(unit.key)])
