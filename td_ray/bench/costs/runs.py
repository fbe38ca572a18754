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

    The smaller one is swept once more through a Ray that is there already.
    """
    few, many = MODELS
    seconds: dict[tuple[str, int], float] = {}
    with TemporaryDirectory(prefix="td-ray-bench-") as name:
        folder = Path(name)
        zoo = Zoo(folder / "zoo", **EMPTY)
        zoo.fill(many)
        size = {}
        for way in ("ray", "inline_threads"):
            for models in MODELS:
                place = folder / f"{way}-{models}"
                seconds[way, models], output = timed_sweep(way, zoo, models, 1, place)
                size[models] = sum(file.stat().st_size for file in output.rglob("*.*"))
                progress(f"costs, {models} empty units, {way}, {seconds[way, models]:.0f} s")
        with simulated_nodes(1, os.cpu_count() or 1, folder) as address:
            seconds["there", few], _ = timed_sweep("ray", zoo, few, 1, folder / "there", address)
        progress(f"costs, {few} empty units, Ray is there, {seconds['there', few]:.0f} s")
    trial, unit = (
        max(0.0, seconds[way, many] - seconds[way, few]) / (many - few)
        for way in ("ray", "inline_threads")
    )
    return Fixed(
        start=max(0.0, seconds["there", few] - few * trial),
        start_ray=max(0.0, seconds["ray", few] - seconds["there", few]),
        trial=trial,
        unit=unit,
        unit_bytes=(size[many] - size[few]) / (many - few),
    )
