"""The embedded default: a small real zoo on scikit-learn's digits, trained here, then compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from td_ray.errors import InputError, RunError
from td_ray.files import atomic, fingerprint, sha256
from td_ray.results.tables import Results
from td_ray.spec import Experiment
from td_ray.sweep import run
from td_ray.sweep.flow import Backend
from td_ray.sweep.progress import Quiet, Reporter

PRETRAINING_SEEDS = (0, 1, 2)
RECIPE = ("digits.py", "networks.py", "strategies.py", "train.py")

EXPERIMENT = """\
# How different are small networks that were trained on handwritten digits in different ways?
name: demo

models:
  - source: checkpoints
    path: zoo/{strategy}-{pretraining_seed}.safetensors
    factory: td_ray.demo.networks:small_convnet

data:
  - name: digits
    source: table
    path: digits.csv
    inputs: images.npy
    split: {column: split}
    stratify: digit

tasks:
  - {name: digit, data: digits, target: digit}
  - name: loops            # closed loops in the stroke: a coarser labelling of the same images
    data: digits
    target: digit
    classes: {none: [1, 2, 3, 4, 5, 7], one: [0, 6, 9], two: [8]}
  - {name: slant, data: digits, target: slant, kind: regression}

heads:
  - {kind: logistic, l2: 1e-3}
  - {kind: ridge, l2: 1e-3}

seeds: 5
output: output
"""


def run_demo(
    folder: Path,
    *,
    backend: Backend = "ray",
    address: str | None = None,
    reporter: Reporter | None = None,
) -> Results:
    """Train the zoo into ``folder`` where it is not there yet, and run its experiment."""
    reporter = reporter or Quiet()
    write_inputs(folder)
    if backend == "inline":
        _train_inline(folder, reporter)
        return run(load(folder), backend=backend, reporter=reporter)
    from td_ray.sweep.connection import connected

    reporter.say("connecting to Ray")
    with connected(address):
        _train_on_ray(folder, reporter)
        return run(load(folder), reporter=reporter)


def load(folder: Path) -> Experiment:
    """The demo's experiment in a folder."""
    return Experiment.load(folder / "experiment.yaml")


def write_inputs(folder: Path) -> None:
    """Write the experiment and its data set.

    Raises:
        InputError: the folder holds another experiment, or other files.
    """
    import numpy as np
    import pandas as pd

    from td_ray.demo.digits import digits_table

    path = folder / "experiment.yaml"
    if path.exists() and path.read_text(encoding="utf-8") != EXPERIMENT:
        raise InputError(f"{path} is not the demo's; name another folder with --output")
    if not path.exists() and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; name another folder with --output")
    with atomic(path) as temporary:
        temporary.write_text(EXPERIMENT, encoding="utf-8")
    _forget_other_recipes(folder / "zoo")
    digits = digits_table()
    columns = {
        "id": digits.ids,
        "digit": digits.label,
        "slant": digits.slant,
        "split": digits.split,
    }
    with atomic(folder / "digits.csv") as temporary:
        pd.DataFrame(columns).to_csv(temporary, index=False)
    with atomic(folder / "images.npy") as temporary, temporary.open("wb") as file:
        np.save(file, digits.images)


def _forget_other_recipes(zoo: Path) -> None:
    """Remove networks that other code trained; they would answer for the present recipe."""
    recipe = fingerprint([sha256(Path(__file__).with_name(file)) for file in RECIPE])
    note = zoo / "recipe.txt"
    if note.is_file() and note.read_text() == recipe:
        return
    for network in zoo.glob("*.safetensors"):
        network.unlink()
    with atomic(note) as temporary:
        temporary.write_text(recipe)


def missing_networks(folder: Path) -> list[tuple[str, int, Path]]:
    """Strategy, pretraining seed and file of the networks that are still to be trained."""
    from td_ray.demo.strategies import STRATEGIES

    wanted = [
        (strategy, seed, folder / "zoo" / f"{strategy}-{seed}.safetensors")
        for strategy in STRATEGIES
        for seed in PRETRAINING_SEEDS
    ]
    return [network for network in wanted if not network[2].is_file()]


def train_to_bytes(strategy: str, seed: int, images: Any, labels: Any) -> bytes:
    """Train one network; returns its safetensors file."""
    from safetensors.torch import save

    from td_ray.demo.train import train

    return bytes(save(train(strategy, seed, images, labels)))


def _keep(path: Path, weights: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(weights)


def _train_on_ray(folder: Path, reporter: Reporter) -> None:
    from td_ray.demo.digits import digits_table, pretraining_set
    from td_ray.sweep.map_tasks import map_tasks

    networks = missing_networks(folder)
    if not networks:
        return
    reporter.stage("networks", len(networks))
    images, labels = pretraining_set(digits_table())

    def finished(number: int, weights: bytes) -> None:
        _keep(networks[number][2], weights)
        reporter.advance()

    arguments = [(strategy, seed) for strategy, seed, _ in networks]
    lost = map_tasks(train_to_bytes, arguments, finished, shared=(images, labels))
    if lost:
        first = lost[0][1].strip().splitlines()[-1]
        raise RunError(f"{len(lost)} networks could not be trained; the first: {first}")


def _train_inline(folder: Path, reporter: Reporter) -> None:
    from td_ray.demo.digits import digits_table, pretraining_set

    networks = missing_networks(folder)
    if not networks:
        return
    reporter.stage("networks", len(networks))
    images, labels = pretraining_set(digits_table())
    for strategy, seed, path in networks:
        _keep(path, train_to_bytes(strategy, seed, images, labels))
        reporter.advance()
