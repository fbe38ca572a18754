"""What runs cost beside their work: empty units, through Ray and in one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from td_ray.bench.sweep import EMPTY
from td_ray.bench.sweep.ways import timed_sweep
from td_ray.bench.sweep.zoo import Zoo
from td_ray.sweep.simulated_nodes import simulated_nodes

MODELS = (20, 220)
TIMES = 2


@dataclass(frozen=True)
class Fixed:
    """See ``td_ray.costs.Calibration``."""

    start: float
    start_ray: float
    trial: float
    unit: float
    unit_bytes: float


def measure(progress: Callable[[str], None] = lambda line: None) -> Fixed:
    """Sweep zoos of two sizes; the slope between them is what one more unit takes.

    The smaller one is swept through a Ray that is there already, too. Means of two sweeps each.
    """
    few, many = MODELS
    ways = [("ray", few), ("ray", many), ("there", few), ("inline", few), ("inline", many)]
    taken: dict[tuple[str, int], list[float]] = {each: [] for each in ways}
    size: dict[int, int] = {}
    with TemporaryDirectory(prefix="td-ray-bench-") as name:
        zoo = Zoo(Path(name) / "zoo", **EMPTY)
        zoo.fill(many)
        for way, models in TIMES * ways:
            with TemporaryDirectory(dir=name) as folder:
                seconds, output = _sweep(way, zoo, models, Path(folder))
                size[models] = sum(file.stat().st_size for file in output.rglob("*.*"))
            taken[way, models].append(seconds)
            progress(f"costs, {models} empty units, {way}, {seconds:.0f} s")
    mean = {each: sum(seconds) / TIMES for each, seconds in taken.items()}
    trial, unit = (
        max(0.0, mean[way, many] - mean[way, few]) / (many - few) for way in ("ray", "inline")
    )
    return Fixed(
        start=max(0.0, mean["there", few] - few * trial),
        start_ray=max(0.0, mean["ray", few] - mean["there", few]),
        trial=trial,
        unit=unit,
        unit_bytes=(size[many] - size[few]) / (many - few),
    )


def _sweep(way: str, zoo: Zoo, models: int, folder: Path) -> tuple[float, Path]:
    """Seconds of a sweep, and its output."""
    if way != "there":
        return timed_sweep(
            "ray" if way == "ray" else "inline_threads", zoo, models, 1, folder / way
        )
    with simulated_nodes(1, os.cpu_count() or 1, folder) as address:
        return timed_sweep("ray", zoo, models, 1, folder / way, address)
