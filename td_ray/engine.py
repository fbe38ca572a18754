"""Run one unit of work in this process. The sweep calls it, and so do tests and ``inline`` runs."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from td_ray.errors import MachineError
from td_ray.features import (
    Features,
    FeatureStore,
    extract_features,
    features_key,
)
from td_ray.files import Digest, DigestMemory
from td_ray.head_kinds.seeds import head_seed
from td_ray.heads import ClassTarget, FittedHeads, Training, ValueTarget
from td_ray.heads.scaling import Scaling, fit_scaling
from td_ray.plan import Block, HeadUnit
from td_ray.results.parts import Parts, Run
from td_ray.results.schemas import HEAD_PART
from td_ray.spec import Experiment
from td_ray.tasks import DataSet, Task, halves, validation_part
from td_ray.zoo import PredictionSource, Representation
from td_ray.zoo.networks import find_device

OpenFeatures = Callable[[str, DataSet], Features]
"""Gives the (n, d) features of a block's representation by key, extracting them if need be."""


@dataclass(frozen=True)
class Fit:
    """One head to fit: a run, which half of it, and the weights (n_train,) that select it."""

    seed: Run
    half: str | None
    weights: NDArray[np.float64]


def run_block(
    block: Block, experiment: Experiment, parts: Parts, open_features: OpenFeatures
) -> tuple[int, int]:
    """Run the units of a block and write a part, or a failure, for each.

    Returns:
        The numbers of units that finished and that failed.

    Raises:
        OSError, MachineError: what is no unit's own trouble, such as a full disk.
    """
    torch.set_num_threads(experiment.resources.cpus_per_trial)
    scaled = ScaledFeatures(open_features, experiment.resources.device)
    failed = 0
    for unit in block.units:
        key = str(unit.key)
        if parts.has_heads(key, unit.runs):
            continue  # finished before the process that began this block was lost
        started = time.perf_counter()
        stage = "features"
        try:
            table = _stored_predictions(unit, experiment)
            if table is None:
                scaled.load(unit)
                stage = "heads"
                table = fit_unit(unit, scaled, experiment.resources.memory)
        except (OSError, MachineError):
            raise  # not the unit's own trouble: it stays missing
        except Exception as error:  # one unit's trouble costs that unit alone
            failed += 1
            parts.write_failure(key, stage, error)
        else:
            parts.write_heads(key, unit.runs, table)
            parts.clear_failure(key)
        parts.write_timing(key, stage, time.perf_counter() - started, platform.node())
    return len(block.units) - failed, failed


class ScaledFeatures:
    """The features of one representation, scaled once per (data set, scaling) and kept."""

    def __init__(self, open_features: OpenFeatures, device: str) -> None:
        self._open = open_features
        self._device = torch.device(find_device(device))
        self._raw: dict[str, Tensor] = {}
        self._scalings: dict[tuple[str, str], Scaling] = {}
        self._training: dict[tuple[str, str], Tensor] = {}

    def load(self, unit: HeadUnit) -> None:
        """Open all features that a unit needs.

        Raises:
            WorkError: extraction failed.
        """
        data = {unit.task.spec.data: unit.task.data, **unit.task.evaluation}
        for name, dataset in data.items():
            key = str(unit.features[name])
            if key not in self._raw:
                self._raw[key] = torch.from_numpy(self._open(key, dataset))

    def width(self, unit: HeadUnit) -> int:
        """The width of the features, before scaling."""
        return self._raw[str(unit.features[unit.task.spec.data])].shape[1]

    def training(self, unit: HeadUnit) -> Tensor:
        """(n_train, d) float64, scaled by the statistics of the whole training split."""
        key, kind = str(unit.features[unit.task.spec.data]), unit.head.scaling
        if (key, kind) not in self._training:
            rows = self._rows(key, unit.task.data.training)
            scaling = fit_scaling(rows, kind)
            self._scalings[key, kind] = scaling
            self._training[key, kind] = scaling.apply(rows)
        return self._training[key, kind]

    def evaluation(self, unit: HeadUnit, data: str) -> Tensor:
        """(n_evaluation, d) of a data set, scaled as the training split was."""
        scaling = self._scalings[str(unit.features[unit.task.spec.data]), unit.head.scaling]
        rows = self._rows(str(unit.features[data]), unit.task.evaluation[data].evaluation)
        return scaling.apply(rows)

    def _rows(self, key: str, rows: NDArray[np.bool_]) -> Tensor:
        return self._raw[key][torch.from_numpy(rows)].to(self._device)


def fit_unit(unit: HeadUnit, features: ScaledFeatures, memory: int) -> pa.Table:
    """Fit all heads of a unit and predict its evaluation splits; returns the unit's part."""
    task, data = unit.task, unit.task.data
    training = features.training(unit)
    fits = _fits(unit)
    ids, strata = data.ids[data.training], data.strata
    validation = validation_part(
        ids, None if strata is None else strata[data.training], data.split_digest
    )
    weights = np.stack([fit.weights for fit in fits])
    heads = unit.head.fit(
        Training(
            training,
            _target(task, training.device),
            torch.from_numpy(weights).to(training.device),
            tuple(head_seed(fit.seed, fit.half) for fit in fits),
            torch.from_numpy(validation).to(training.device),
            memory,
        )
    )
    train_scores = _scores(heads.predict(training).cpu().numpy(), task, task.train_target, weights)
    rows: list[dict[str, Any]] = []
    for name, dataset in task.evaluation.items():
        predictions = heads.predict(features.evaluation(unit, name)).cpu().numpy()
        scores = _scores(predictions, task, task.evaluation_targets[name])
        for number, fit in enumerate(fits):
            facts = _facts(heads, number, task)
            facts |= {"train_score": train_scores[number], "score": scores[number]}
            facts |= {"n_train": int((fit.weights > 0).sum()), "width": features.width(unit)}
            row = _row(name, dataset, fit.seed, fit.half, predictions[number], task)
            rows.append(row | facts)
    return pa.Table.from_pylist(rows, schema=HEAD_PART)


def _fits(unit: HeadUnit) -> list[Fit]:
    data = unit.task.data
    ids = data.ids[data.training]
    strata = None if data.strata is None else data.strata[data.training]
    fits = []
    for run in unit.runs:
        if run is None:
            fits.append(Fit(None, None, np.ones(len(ids))))
            continue
        for half, rows in zip("ab", halves(ids, strata, data.split_digest, run), strict=True):
            fits.append(Fit(run, half, rows.astype(np.float64)))
    return fits


def _target(task: Task, device: torch.device) -> ClassTarget | ValueTarget:
    target = torch.from_numpy(task.train_target).to(device)
    if task.is_classification:
        return ClassTarget(target, len(task.classes))
    return ValueTarget(target)


def _facts(heads: FittedHeads, number: int, task: Task) -> dict[str, Any]:
    """What is written down with each head."""
    absent: list[str] = []
    if heads.present is not None:
        present = heads.present[number].tolist()
        absent = [name for name, there in zip(task.classes, present, strict=True) if not there]
    penalty, found = heads.penalty, heads.hyperparameters
    return {
        "penalty": penalty and penalty.value,
        "penalty_source": penalty and penalty.source,
        "penalty_at_edge": penalty and penalty.at_edge,
        "hyperparameters": None if found is None else json.dumps(found, sort_keys=True),
        "loss": float(heads.loss[number]),
        "gradient_norm": float(heads.gradient_norm[number]),
        "iterations": int(heads.iterations[number]),
        "absent_classes": absent,
    }


def _scores(
    predictions: NDArray[Any],
    task: Task,
    target: NDArray[Any],
    weights: NDArray[np.float64] | None = None,
) -> list[float | None]:
    """Accuracy or R2 of each row of predictions (K, n); R2 of a constant target is null."""
    if weights is None:
        weights = np.ones(predictions.shape)
    if task.is_classification:
        return list(np.average(predictions == target, axis=1, weights=weights).tolist())
    scores: list[float | None] = []
    for row, weight in zip(predictions, weights, strict=True):
        spread = np.average((target - np.average(target, weights=weight)) ** 2, weights=weight)
        error = np.average((row - target) ** 2, weights=weight)
        scores.append(float(1 - error / spread) if spread > 0 else None)
    return scores


def _row(
    name: str, data: DataSet, seed: Run, half: str | None, predictions: NDArray[Any], task: Task
) -> dict[str, Any]:
    stored, encoding = encode(predictions, task)
    return {
        "data": name,
        "seed": seed,
        "half": half,
        "n_evaluation": len(predictions),
        "encoding": encoding,
        "predictions": stored,
        "ids_digest": data.evaluation_digest,
    }


def encode(predictions: NDArray[Any], task: Task) -> tuple[bytes, str]:
    """Store predictions (n,): codes in the smallest type, values centred in float32.

    Values are centred by the training mean of the target before they lose digits. Values that
    float32 cannot hold are stored in float64.
    """
    array = predictions if task.is_classification else predictions - task.center
    if task.is_classification:
        encoding = str(np.min_scalar_type(len(task.classes) - 1))
    else:
        fits = np.abs(array).max() < np.finfo(np.float32).max
        encoding = "float32" if fits else "float64"
    return array.astype(np.dtype(encoding).newbyteorder("<")).tobytes(), encoding


def _stored_predictions(unit: HeadUnit, experiment: Experiment) -> pa.Table | None:
    """The part of a model that already has its outputs; None for models that get heads."""
    source = unit.representation.model
    if not isinstance(source, PredictionSource):
        return None
    rows = []
    for name, data in unit.task.evaluation.items():
        predictions = source.predictions(experiment.folder, unit.task, data)
        key = features_key(unit.representation, data, experiment.folder, _computed(experiment))
        if key != unit.features[name]:
            raise MachineError(_changed(unit.representation))
        score = _scores(predictions[None], unit.task, unit.task.evaluation_targets[name])[0]
        row = _row(name, data, None, None, predictions, unit.task)
        rows.append({**row, "score": score})
    return pa.Table.from_pylist(rows, schema=HEAD_PART)


def open_from_store(block: Block, experiment: Experiment, store: FeatureStore) -> OpenFeatures:
    """Features straight from a store, extracted in this process where they are not there."""

    def open_features(key: str, data: DataSet) -> Features:
        if not store.valid(key):
            extract_into(store, key, block.representation, data, experiment)
        return store.open(key)

    return open_features


def extract_into(
    store: FeatureStore,
    key: str,
    representation: Representation,
    data: DataSet,
    experiment: Experiment,
) -> None:
    """Extract a representation's features on a data set into a store.

    Raises:
        WorkError: whatever goes wrong with this model on this data.
    """
    resources = experiment.resources
    torch.set_num_threads(resources.cpus_per_trial)
    blocks = extract_features(
        representation, data, experiment.folder, resources.device, resources.batch_size
    )
    unchanged = _unchanged(blocks, key, representation, data, experiment)
    store.write(key, unchanged, representation, data)


def _unchanged(
    blocks: Iterator[Features],
    key: str,
    representation: Representation,
    data: DataSet,
    experiment: Experiment,
) -> Iterator[Features]:
    """The blocks, refused at their end if the files are no longer those that the key names."""
    yield from blocks
    if features_key(representation, data, experiment.folder, _computed(experiment)) != key:
        raise MachineError(_changed(representation))


def _computed(experiment: Experiment) -> Digest:
    return DigestMemory(experiment.cache_path).computed


def _changed(representation: Representation) -> str:
    name = representation.model_name
    return f"the files of model '{name}' changed while it was at work; run again"
