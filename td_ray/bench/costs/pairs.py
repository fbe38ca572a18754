"""Tiles of all measures: simulated predictions and features, compared as a run does it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from td_ray import yaml_files
from td_ray.bench.costs.plans import planned
from td_ray.costs import Counts
from td_ray.measures import Measure, fits_stand_ins
from td_ray.measures.features import feature_measures
from td_ray.plan.pair_prices import feature_pair_counts, pair_counts
from td_ray.plan.tiles import FEATURES, plan_tiles
from td_ray.registry import MEASURES
from td_ray.results.parts import Parts
from td_ray.results.tables import open_results
from td_ray.spec import Experiment
from td_ray.sweep import run

SHAPES = (
    {"models": 128, "classes": 2, "examples": 2000, "seeds": 0},
    {"models": 128, "classes": 10, "examples": 10_000, "seeds": 1},
    {"models": 128, "classes": 10, "examples": 1000, "seeds": 3},
    {"models": 128, "classes": 100, "examples": 4000, "seeds": 0},
)
OF_PROBABILITIES = (
    {"models": 32, "classes": 2, "examples": 2000, "seeds": 0},
    {"models": 32, "classes": 10, "examples": 1000, "seeds": 0},
    {"models": 32, "classes": 50, "examples": 500, "seeds": 0},
)
WIDTHS = (64, 256, 768)
FEATURE_MODELS = 24
STORED_MODELS = (10, 110)
TRAINING_ROWS = 200

Case = tuple[str, str, Counts, float]


@dataclass(frozen=True)
class Compared:
    """What was measured.

    Attributes:
        cases: of all measures.
        row_bytes: of a row of pairs, in a part.
        stored: seconds of a model whose predictions are there.
    """

    cases: list[Case]
    row_bytes: float
    stored: float


def measure(folder: Path) -> Compared:
    """Compare predictions and features of some shapes under all measures."""
    found = [MEASURES.get(name) for name in MEASURES.names()]
    compared = [
        each for each in found if isinstance(each, Measure) and "classification" in each.kinds
    ]
    compared = [each for each in compared if not fits_stand_ins(each.name)]
    plain = [each.name for each in compared if "probabilities" not in each.needs]
    needy = [each.name for each in compared if "probabilities" in each.needs]
    cases: list[Case] = []
    sizes: list[float] = []
    for names in (plain, needy):  # kernels are compiled, or read
        first = {"models": 4, "classes": 2, "examples": 100, "seeds": 1}
        run(_predictions(folder / f"first-{names[0]}", names, **first), backend="inline")
    for number, (shape, names) in enumerate(
        [*((shape, plain) for shape in SHAPES), *((shape, needy) for shape in OF_PROBABILITIES)]
    ):
        place = folder / f"predictions-{number}"
        experiment = _predictions(place, names, **shape)
        cases += _tiles(experiment)
        sizes.append(_bytes_of_row(place))
    for width in WIDTHS:
        cases += _tiles(_features(folder / f"features-{width}", width))
    return Compared(cases, float(np.mean(sizes)), _stored(folder))


def _stored(folder: Path) -> float:
    """Seconds of one model more, as the slope between zoos of two sizes."""
    seconds = []
    for models in STORED_MODELS:
        shape = {"models": models, "classes": 10, "examples": 5000, "seeds": 2}
        experiment = _predictions(folder / f"stored-{models}", ["td"], **shape)
        started = time.perf_counter()
        run(experiment, backend="inline")
        seconds.append(time.perf_counter() - started)
    few, many = STORED_MODELS
    return max(0.0, seconds[1] - seconds[0]) / (many - few)


def _predictions(
    folder: Path, names: list[str], models: int, classes: int, examples: int, seeds: int
) -> Experiment:
    """Models that agree on some of the examples, with the halves of each seed."""
    random = np.random.default_rng(0)
    (folder / "models").mkdir(parents=True)
    truth = random.integers(classes, size=examples)
    heads = ["label", *(f"label-{seed}{half}" for seed in range(seeds) for half in "ab")]
    wants_probabilities = _need_probabilities(names)
    for number in range(models):
        arrays: dict[str, Any] = {}
        for head in heads:
            wrong = random.random(examples) < 0.3
            drawn = np.where(wrong, random.integers(classes, size=examples), truth)
            arrays[head] = drawn.astype(np.uint8)
            if wants_probabilities:
                scores = random.random((examples, classes), np.float32)
                scores[np.arange(examples), drawn] += 2
                arrays[f"{head}-probabilities"] = scores / scores.sum(1, keepdims=True)
        np.savez(folder / f"models/net-{number:04d}.npz", allow_pickle=False, **arrays)
    train = max(TRAINING_ROWS, 2 * classes)
    label = np.concatenate([np.arange(train) % classes, truth])
    split = ["train"] * train + ["test"] * examples
    ids = np.arange(len(label)).astype(str)
    np.savez(folder / "labels.npz", id=ids, label=label, split=np.array(split))
    model: dict[str, Any] = {"source": "predictions", "path": "models/*.npz", "ids": "row-order"}
    if seeds:
        model["halves"] = "{task}-{seed}{half}"
    if wants_probabilities:
        model["probabilities"] = "{task}-probabilities"
    data = {"name": "examples", "source": "table", "path": "labels.npz"}
    return _experiment(folder, [model], {**data, "split": {"column": "split"}}, names, seeds)


def _need_probabilities(names: list[str]) -> bool:
    found = (MEASURES.get(name) for name in names)
    return any(isinstance(each, Measure) and "probabilities" in each.needs for each in found)


def _features(folder: Path, width: int) -> Experiment:
    random = np.random.default_rng(0)
    (folder / "models").mkdir(parents=True)
    shared = random.standard_normal((2500, width), np.float32)
    for number in range(FEATURE_MODELS):
        own = random.standard_normal((2500, width), np.float32)
        np.save(folder / f"models/net-{number:04d}.npy", shared + own)
    ids = np.arange(2500).astype(str)
    np.savez(folder / "labels.npz", id=ids, label=np.arange(2500) % 2)
    model = {"source": "features", "path": "models/*.npy", "ids": "row-order"}
    data = {"name": "examples", "source": "table", "path": "labels.npz", "split": {"test": 0.8}}
    names = [name for name in MEASURES.names() if feature_measures([name])]
    return _experiment(folder, [model], data, names, 0)


def _experiment(
    folder: Path, models: list[Any], data: dict[str, Any], names: list[str], seeds: int
) -> Experiment:
    content = {
        "name": "costs",
        "models": models,
        "data": [data],
        "tasks": [{"name": "label", "data": "examples", "target": "label"}],
        "heads": ["logistic"],
        "measures": names,
        "seeds": seeds,
        "resources": {"cache": "cache", "tile": 128},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml_files.write(content))
    return Experiment.load(path)


def _tiles(experiment: Experiment) -> Iterator[Case]:
    """What each tile took, when all are compared."""
    run(experiment, backend="inline")
    results, plan = open_results(experiment.output_folder), planned(experiment)
    timings: Any = results.table("timings")
    seconds = dict(zip(timings["unit"], timings["seconds"], strict=True))
    (task,) = plan.problem.tasks
    for tile in plan_tiles(plan, Parts(experiment.output_folder)):
        examples = int(task.evaluation_rows(tile.data).sum())
        if tile.kind == FEATURES:
            width = int(results.heads()["width"].iloc[0])
            work = feature_pair_counts(min(examples, 2000), width)
        else:
            measure_of = MEASURES.get(tile.measure)
            assert isinstance(measure_of, Measure)
            work = pair_counts(measure_of, task.spec, examples, len(task.classes), plan)
        case = f"{tile.n_pairs} pairs, {examples} examples, {len(task.classes)} classes"
        yield tile.measure, case, work * tile.n_pairs, float(seconds[tile.key])


def _bytes_of_row(folder: Path) -> float:
    """Of the parts of pairs, and of the table that is made of them."""
    output = folder / "output"
    size = sum(file.stat().st_size for file in (output / "parts/pairs").rglob("*.parquet"))
    return size / len(open_results(output).pairs())
