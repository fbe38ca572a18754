"""How right plans are: forecasts of runs, beside what the runs then take.

Three experiments, each after a run of its first two models, which tell how many iterations heads
take: feature arrays, networks, and predictions that are there already. They run on one core, on all
cores of this machine, and on two simulated nodes. A run on one core has that core for all its
processes, those of Ray too. What was forecast is not changed after the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from td_ray import yaml_files
from td_ray.bench.costs.plans import planned
from td_ray.bench.sweep import REAL
from td_ray.bench.sweep.zoo import Zoo
from td_ray.costs import read_calibration
from td_ray.errors import RunError
from td_ray.plan.forecast import Forecast, forecast_on
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep import run as run_experiment
from td_ray.sweep.simulated_nodes import simulated_nodes

NOTES = (
    "forecast: of what is left after the first two models; seconds: what it took, in one run each",
    "on a busy machine these figures mean little",
)
NETWORKS = ("mobilenet_v2", "resnet18", "efficientnet_b0")
PIXELS, IMAGES = 128, 800

Row = dict[str, Any]
Write = Callable[[Path, int], Path]
"""Writes an experiment of so many models into a folder; returns its path."""


@dataclass(frozen=True)
class Case:
    """An experiment, how many models it has, and the machines.

    Attributes:
        nodes: None for this machine as it is, or so many simulated ones of one core each.
        cores: that all processes may use.
    """

    name: str
    write: Write
    models: int
    nodes: int | None
    cores: int


def run(path: Path, progress: Callable[[str], None]) -> tuple[list[Row], list[str]]:
    """Forecast and run all cases.

    Args:
        path: of the calibration.
    """
    rows = []
    for case in _cases():
        with TemporaryDirectory(prefix="td-ray-bench-") as folder:
            rows.append(_one(case, Path(folder), path))
        progress(f"plan, {case.name}, {rows[-1]['machines']}: {rows[-1]['off_by']:.2f}")
    return rows, list(NOTES)


def _cases() -> list[Case]:
    all_cores = os.cpu_count() or 1
    return [
        Case("arrays", _arrays, 8, 1, 1),
        Case("arrays", _arrays, 8 * all_cores, None, all_cores),
        Case("arrays", _arrays, 8 * all_cores, 2, all_cores),
        Case("networks", _networks, 9 * all_cores, None, all_cores),
        Case("networks", _networks, 6, 1, 1),
        Case("predictions", _predictions, 400 * all_cores, None, all_cores),
    ]


def _one(case: Case, folder: Path, path: Path) -> Row:
    first = Experiment.load(case.write(folder, 2))
    run_experiment(first, backend="inline")
    experiment = case.write(folder, case.models)
    nodes, cpus = (1, case.cores) if case.nodes is None else (case.nodes, 1)
    loaded = Experiment.load(experiment, [f"cluster.nodes={nodes}", f"cluster.cpus={cpus}"])
    parts, calibration = Parts(loaded.output_folder), read_calibration(path)
    target = "local" if case.nodes is None else "ray"
    found = forecast_on(target, planned(loaded), parts, calibration)
    before = _size(folder / "output")
    seconds = _timed(case, experiment, folder)
    machines = f"{nodes} node{'s' * (nodes > 1)} of {cpus} core{'s' * (cpus > 1)}"
    return _row(case, machines, found, seconds, _size(folder / "output") - before)


def _row(case: Case, machines: str, found: Forecast, seconds: float, size: int) -> Row:
    return {
        "benchmark": "plan",
        "case": f"{case.name}, {case.models:,} models",
        "machines": machines,
        "forecast": found.seconds,
        "seconds": seconds,
        "off_by": found.seconds / seconds,
        "forecast_mib": found.output_bytes / 2**20,
        "mib": size / 2**20,
        "binds": found.binds.partition(";")[0],
    }


def _timed(case: Case, experiment: Path, folder: Path) -> float:
    """Seconds from the start of ``td-ray run`` to its exit."""
    nodes = nullcontext("local") if case.nodes is None else simulated_nodes(case.nodes, 1, folder)
    with _on_cores(case.cores), nodes as address:
        environment = {**os.environ, "RAY_ADDRESS": address}
        command = [sys.executable, "-m", "td_ray.cli", "run", str(experiment)]
        started = time.perf_counter()
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    if ended.returncode:
        raise RunError(f"a run of the benchmark failed: {ended.stderr.strip().splitlines()[-1]}")
    return seconds


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Let processes that are started meanwhile use so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _arrays(folder: Path, models: int) -> Path:
    zoo = Zoo(folder / "zoo", **REAL)
    zoo.fill(models)
    path = zoo.write_experiment(folder / "output", range(models))
    content = yaml_files.parse(path.read_bytes(), str(path))
    return _written(path, {**content, "resources": {"cache": "cache"}})


def _networks(folder: Path, models: int) -> Path:
    """Torchvision's architectures with random weights, on images of noise in ten classes."""
    from safetensors.torch import save_file
    from torch import manual_seed
    from torchvision.models import get_model

    random = np.random.default_rng(0)
    label = np.arange(IMAGES) % 10
    images = random.random((IMAGES, 3, PIXELS, PIXELS), np.float32)
    images += label[:, None, None, None].astype(np.float32) / 10
    np.save(folder / "images.npy", images)
    np.savez(folder / "labels.npz", id=np.arange(IMAGES).astype(str), label=label)
    entries = []
    for number in range(models):
        manual_seed(number)
        name, file = NETWORKS[number % len(NETWORKS)], folder / f"net-{number}.safetensors"
        if not file.exists():
            save_file(get_model(name, weights=None).state_dict(), file)
        factory = {"factory": f"torchvision.models:{name}", "name": f"{name}-{number}"}
        entries.append({"source": "checkpoints", "path": file.name, **factory})
    data = {"name": "images", "source": "table", "path": "labels.npz", "inputs": "images.npy"}
    content = {
        "name": "networks",
        "models": entries,
        "data": [{**data, "stratify": "label"}],
        "tasks": [{"name": "label", "data": "images", "target": "label"}],
        "seeds": 5,
        "resources": {"cache": "cache"},
    }
    return _written(folder / "experiment.yaml", content)


def _predictions(folder: Path, models: int) -> Path:
    """Predictions of ten classes, which agree on most of the examples."""
    random = np.random.default_rng(0)
    examples, seeds = 10_000, 3
    truth = random.integers(10, size=examples, dtype=np.uint8)
    heads = ["label", *(f"label-{seed}{half}" for seed in range(seeds) for half in "ab")]
    (folder / "models").mkdir(exist_ok=True)
    for number in range(models):
        file = folder / f"models/net-{number:05d}.npz"
        if not file.exists():
            drawn = partial(random.integers, 10, size=examples, dtype=np.uint8)
            kept = {name: np.where(random.random(examples) < 0.7, truth, drawn()) for name in heads}
            np.savez(file, allow_pickle=False, **kept)
    label = np.concatenate([np.arange(100, dtype=np.uint8) % 10, truth])
    split = np.array(["train"] * 100 + ["test"] * examples)
    ids = np.arange(len(label)).astype(str)
    np.savez(folder / "labels.npz", id=ids, label=label, split=split)
    model = {"source": "predictions", "path": "models/*.npz", "ids": "row-order"}
    data = {"name": "examples", "source": "table", "path": "labels.npz"}
    content = {
        "name": "predictions",
        "models": [{**model, "halves": "{task}-{seed}{half}"}],
        "data": [{**data, "split": {"column": "split"}}],
        "tasks": [{"name": "label", "data": "examples", "target": "label"}],
        "heads": ["logistic"],
        "seeds": seeds,
        "resources": {"cache": "cache"},
    }
    return _written(folder / "experiment.yaml", content)


def _written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml_files.write({**content, "output": "output"}))
    return path
