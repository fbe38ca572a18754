"""Run one unit of work in this process. The sweep calls it, and so do tests and ``inline`` runs."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from td_ray.errors import MachineError, WorkError, error_text
from td_ray.extraction import extract_features
from td_ray.features import Features, FeatureStore, Pass, features_key
from td_ray.files import Digest, DigestMemory
from td_ray.head_kinds import HeadKind
from td_ray.head_kinds.seeds import head_seed
from td_ray.heads import ClassTarget, FittedHeads, Training, ValueTarget
from td_ray.kept_features import feature_part
from td_ray.plan import Block, FeatureUnit, HeadUnit
from td_ray.results.parts import Parts, Run
from td_ray.results.schemas import HEAD_PART
from td_ray.scaled_features import OpenFeatures, ScaledFeatures
from td_ray.spec import Experiment
from td_ray.tasks import DataSet, Task
from td_ray.zoo import PredictionSource, Representation


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
    scaled = ScaledFeatures(open_features, experiment)
    failed = sum(not _keep(unit, parts, scaled) for unit in block.kept)
    for unit in block.units:
        key = str(unit.key)
        if parts.has_heads(key, unit.runs):
            continue  # finished before the process that began this block was lost
        with attempt(unit, parts) as stages:
            table = _stored_predictions(unit, experiment)
            if table is None:
                scaled.load(unit)
                stages.append("heads")
                head = chosen_head(unit, parts)
                table = fit_unit(unit, head, scaled)
            parts.write_heads(key, unit.runs, table)
        failed += parts.failure(key) is not None
    return len(block) - failed, failed


def _keep(unit: FeatureUnit, parts: Parts, features: ScaledFeatures) -> bool:
    """Write the part of a unit of features, or its failure; returns whether it is there."""
    key = str(unit.key)
    if not parts.has_features(key):
        with attempt(unit, parts):
            rows = features.raw(str(unit.features), unit.data)[torch.from_numpy(unit.data.drawn)]
            parts.write_features(key, feature_part(rows.numpy()))
    return parts.has_features(key)


@contextmanager
def attempt(unit: HeadUnit | FeatureUnit, parts: Parts) -> Iterator[list[str]]:
    """Try a unit: what goes wrong becomes its failure, and the time it took is written down.

    Yields:
        The stages that it has reached, to append to; ``features`` at first.

    Raises:
        OSError, MachineError: not the unit's own trouble: it stays missing.
    """
    key, started, stages = str(unit.key), time.perf_counter(), ["features"]
    try:
        yield stages
    except (OSError, MachineError):
        raise
    except Exception as error:  # one unit's trouble costs that unit alone
        parts.write_failure(key, stages[-1], named(unit, error, stages[-1]))
    else:
        parts.clear_failure(key)
    parts.write_timing(key, stages[-1], time.perf_counter() - started, platform.node())


def named(unit: HeadUnit | FeatureUnit, error: Exception, stage: str) -> Exception:
    """The error, with the unit's names in front where it does not name its model itself."""
    if isinstance(unit, FeatureUnit) or stage == "features":
        return error
    who = f"model '{unit.representation.model_name}' at '{unit.representation.layer}'"
    what = f"task '{unit.task.name}', head '{unit.head.name}'"
    return WorkError(f"{who}, {what}: {error_text(error)}")


def chosen_head(unit: HeadUnit, parts: Parts) -> HeadKind:
    """The head that is fitted: of several candidates, the one that was chosen.

    Raises:
        WorkError: other runs of the unit were fitted with another choice, which is lost.
    """
    if not unit.is_searched:
        return unit.head
    key = str(unit.key)
    chosen = parts.read_choice(key).to_pylist()
    (number,) = (int(row["candidate"]) for row in chosen if row["chosen"])
    if parts.head_files(key):
        used = set(parts.read_heads(key, ["hyperparameters"])["hyperparameters"].to_pylist())
        if used != {chosen[number]["hyperparameters"]}:
            raise WorkError(
                f"its other heads have hyperparameters {', '.join(sorted(used))}, and the choice "
                f"is now {chosen[number]['hyperparameters']}; remove {parts.root / 'heads' / key}"
            )
    return unit.candidates[number]


def training_of(
    unit: HeadUnit,
    features: ScaledFeatures,
    weights: NDArray[np.float64],
    seeds: Sequence[int],
) -> Training:
    """What heads of a unit are fitted on, with weights (K, n_train) and K seeds."""
    training = features.training(unit)
    return Training(
        training,
        target_of(unit.task, unit.task.train_target, training.device),
        torch.from_numpy(weights).to(training.device),
        tuple(seeds),
        torch.from_numpy(unit.task.validation).to(training.device),
        features.memory_left(),
    )


def fit_unit(unit: HeadUnit, head: HeadKind, features: ScaledFeatures) -> pa.Table:
    """Fit all heads of a unit and predict its evaluation splits; returns the unit's part."""
    task, fits = unit.task, _fits(unit)
    weights = np.stack([fit.weights for fit in fits])
    seeds = [head_seed(fit.seed, fit.half) for fit in fits]
    training = training_of(unit, features, weights, seeds)
    heads = head.fit(training)
    predictions = heads.predict(training.features).cpu().numpy()
    train_scores = _scores(predictions, task, task.train_target, weights)
    on_training = predictions if unit.with_training else None
    rows: list[dict[str, Any]] = []
    for name in task.evaluation:
        evaluated = features.evaluation(unit, name)
        predictions = heads.predict(evaluated).cpu().numpy()
        probabilities = heads.probabilities(evaluated).cpu() if unit.with_probabilities else None
        scores = _scores(predictions, task, task.evaluation_targets[name])
        for number, fit in enumerate(fits):
            facts = _facts(heads, number, task)
            facts |= {"train_score": train_scores[number], "score": scores[number]}
            facts |= {"n_train": int((fit.weights > 0).sum()), "width": features.width(unit)}
            row = _row(name, fit.seed, fit.half, predictions[number], task)
            if probabilities is not None:
                row["probabilities"] = encode_probabilities(probabilities[number].numpy())
            if on_training is not None and fit.seed is None and name == next(iter(task.evaluation)):
                row["train_predictions"] = encode(on_training[number], task)[0]
            rows.append(row | facts)
    return pa.Table.from_pylist(rows, schema=HEAD_PART)


def _fits(unit: HeadUnit) -> list[Fit]:
    fits = []
    for run in unit.runs:
        if run is None:
            fits.append(Fit(None, None, np.ones(unit.task.n_train)))
            continue
        for half, rows in zip("ab", unit.task.halves(run), strict=True):
            fits.append(Fit(run, half, rows.astype(np.float64)))
    return fits


def target_of(task: Task, values: NDArray[Any], device: torch.device) -> ClassTarget | ValueTarget:
    """Codes or values (n_train,) as a head of the task takes them."""
    if task.is_classification:
        codes = torch.from_numpy(values.astype(np.int64)).to(device)
        return ClassTarget(codes, len(task.classes))
    return ValueTarget(torch.from_numpy(values.astype(np.float64)).to(device))


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
    name: str, seed: Run, half: str | None, predictions: NDArray[Any], task: Task
) -> dict[str, Any]:
    stored, encoding = encode(predictions, task)
    return {
        "data": name,
        "seed": seed,
        "half": half,
        "n_evaluation": len(predictions),
        "encoding": encoding,
        "predictions": stored,
        "ids_digest": task.evaluation_digest(name),
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


def encode_probabilities(probabilities: NDArray[Any]) -> bytes:
    """Store probabilities (n, C): float32, little-endian, row by row."""
    return probabilities.astype("<f4").tobytes()


def _stored_predictions(unit: HeadUnit, experiment: Experiment) -> pa.Table | None:
    """The part of a model that already has its outputs; None for models that get heads."""
    source = unit.representation.model
    if not isinstance(source, PredictionSource):
        return None
    rows = []
    halves = [(seed, half) for seed in unit.runs if seed is not None for half in "ab"]
    for name, data in unit.task.evaluation.items():
        for seed, half in [*[(None, None)] * (None in unit.runs), *halves]:
            predictions = source.predictions(experiment.folder, unit.task, data, seed, half)
            score = _scores(predictions[None], unit.task, unit.task.evaluation_targets[name])[0]
            row = {**_row(name, seed, half, predictions, unit.task), "score": score}
            if unit.with_probabilities:
                found = source.predicted_probabilities(
                    experiment.folder, unit.task, data, seed, half
                )
                row["probabilities"] = encode_probabilities(found)
            rows.append(row)
        key = features_key(unit.representation, data, experiment.folder, _computed(experiment))
        if key != unit.features[name]:
            raise MachineError(_changed(unit.representation))
    return pa.Table.from_pylist(rows, schema=HEAD_PART)


Heard = Callable[[int], None]
"""Hears of samples that went through a network."""


def open_from_store(
    passes: Mapping[str, Pass], experiment: Experiment, store: FeatureStore, heard: Heard
) -> OpenFeatures:
    """Features straight from a store, extracted in this process where they are not there.

    Args:
        passes: of a block, by data set.
    """

    def open_features(key: str, data: DataSet) -> Features:
        if not store.valid(key):
            extract_into(store, key, passes[data.name], experiment, heard)
        return store.open(key)

    return open_features


def extract_into(
    store: FeatureStore, key: str, wanted: Pass, experiment: Experiment, heard: Heard
) -> None:
    """Extract the features with a key into a store; those of the same pass with them.

    Raises:
        WorkError: whatever goes wrong with this model on this data.
    """
    torch.set_num_threads(experiment.resources.cpus_per_trial)
    try:
        errors = _run_pass(store, wanted, experiment, heard)
    except WorkError:
        if len(wanted.keys) == 1:
            raise
        errors = _run_pass(
            store, wanted.alone(key), experiment, heard
        )  # another layer may be to blame
    for layer, error in errors.items():
        if wanted.keys[layer] == key:
            raise error


def _run_pass(
    store: FeatureStore, wanted: Pass, experiment: Experiment, heard: Heard
) -> Mapping[str, WorkError]:
    """Extract what is missing of a pass; returns the errors of layers that gave no features."""
    with store.writing(wanted) as arrays:
        if not arrays.layers:
            return {}
        folder, resources = experiment.folder, experiment.resources
        for block in extract_features(wanted, arrays.layers, arrays.start, folder, resources):
            arrays.append(block)
            heard(len(next(iter(block.values()))))
        digest = DigestMemory(experiment.cache_path).computed
        for layer in arrays.layers:
            representation = Representation(wanted.model, layer)
            now = features_key(representation, wanted.data, experiment.folder, digest)
            if now != wanted.keys[layer]:
                raise MachineError(_changed(representation))
        arrays.finish()
        return arrays.errors


def _computed(experiment: Experiment) -> Digest:
    return DigestMemory(experiment.cache_path).computed


def _changed(representation: Representation) -> str:
    name = representation.model_name
    return f"the files of model '{name}' changed while it was at work; run again"
