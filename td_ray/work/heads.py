"""Run one unit of work in this process. The sweep calls it, and so do tests and ``inline`` runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from td_ray.errors import WorkError
from td_ray.head_kinds import HeadKind
from td_ray.head_kinds.seeds import head_seed
from td_ray.heads import ClassTarget, FittedHeads, Training, ValueTarget
from td_ray.plan import Block, FeatureUnit, HeadUnit
from td_ray.results.parts import Parts, Run
from td_ray.results.schemas import HEAD_PART
from td_ray.spec import Experiment
from td_ray.tasks import Task
from td_ray.work.extracting import OpenFeatures
from td_ray.work.head_parts import (
    attempt,
    encode_probabilities,
    encode_training,
    head_row,
    scores_of,
)
from td_ray.work.kept_features import feature_part
from td_ray.work.scaled_features import ScaledFeatures
from td_ray.work.taken_predictions import take_block
from td_ray.work.time_limit import NO_LIMIT, TimeLimit


@dataclass(frozen=True)
class Fit:
    """One head to fit: a run, which half of it, and the weights (n_train,) that select it."""

    seed: Run
    half: str | None
    weights: NDArray[np.float64]


def run_block(
    block: Block,
    experiment: Experiment,
    parts: Parts,
    open_features: OpenFeatures,
    limit: TimeLimit = NO_LIMIT,
) -> tuple[int, int]:
    """Run the units of a block and write a part, or a failure, for each.

    Those that have one are left as they are: a process that was lost has begun this block.

    Returns:
        The numbers of units that finished and that failed.

    Raises:
        OSError, MachineError: what is no unit's own trouble, such as a full disk.
    """
    if block.is_stored:
        return take_block(block, experiment, parts, limit)
    torch.set_num_threads(experiment.resources.cpus_per_trial)
    scaled = ScaledFeatures(open_features, experiment)
    failed = sum(not _keep(unit, parts, scaled, limit) for unit in block.kept)
    for unit in block.units:
        key = str(unit.key)
        if parts.has_heads(key, unit.runs):
            continue
        if parts.failure(key) is None:
            with attempt(unit, parts, limit) as stages:
                scaled.load(unit)
                stages.append("heads")
                table = fit_unit(unit, chosen_head(unit, parts), scaled)
                parts.write_heads(key, unit.runs, table)
        failed += parts.failure(key) is not None
    return len(block) - failed, failed


def _keep(unit: FeatureUnit, parts: Parts, features: ScaledFeatures, limit: TimeLimit) -> bool:
    """Write the part of a unit of features, or its failure; returns whether it is there."""
    key = str(unit.key)
    if not parts.has_features(key) and parts.failure(key) is None:
        with attempt(unit, parts, limit):
            rows = features.raw(str(unit.features), unit.data)[torch.from_numpy(unit.data.drawn)]
            parts.write_features(key, feature_part(rows.numpy()))
    return parts.has_features(key)


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
                f"is now {chosen[number]['hyperparameters']}; remove {parts.heads_of(key)}"
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
    train_scores = scores_of(predictions, task, task.train_target, weights)
    on_training = predictions if unit.with_training else None
    rows: list[dict[str, Any]] = []
    for name in task.evaluation:
        evaluated = features.evaluation(unit, name)
        predictions = heads.predict(evaluated).cpu().numpy()
        probabilities = heads.probabilities(evaluated).cpu() if unit.with_probabilities else None
        scores = scores_of(predictions, task, task.evaluation_targets[name])
        for number, fit in enumerate(fits):
            facts = _facts(heads, number, task)
            facts |= {"train_score": train_scores[number], "score": scores[number]}
            facts |= {"n_train": int((fit.weights > 0).sum()), "width": features.width(unit)}
            row = head_row(name, fit.seed, fit.half, predictions[number], task)
            if probabilities is not None:
                row["probabilities"] = encode_probabilities(probabilities[number].numpy())
            if on_training is not None and fit.seed is None and name == next(iter(task.evaluation)):
                row["train_predictions"] = encode_training(on_training[number], task)
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
