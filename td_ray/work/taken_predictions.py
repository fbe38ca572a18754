"""Units of models that have their predictions already: they are taken over, and nothing is fitted.

It needs no torch, so that a worker that only reads starts fast and stays small.
"""

from __future__ import annotations

from typing import cast

import pyarrow as pa

from td_ray.features import require_unchanged
from td_ray.files import DigestMemory
from td_ray.plan import Block, HeadUnit
from td_ray.results.parts import Parts
from td_ray.results.schemas import HEAD_PART
from td_ray.spec import Experiment
from td_ray.work.head_parts import attempt, encode_probabilities, head_row, scores_of
from td_ray.work.time_limit import TimeLimit
from td_ray.zoo import PredictionSource


def take_block(
    block: Block, experiment: Experiment, parts: Parts, limit: TimeLimit
) -> tuple[int, int]:
    """Take over the predictions of a block, and write a part, or a failure, for each unit.

    Those that have one are left as they are.

    Returns:
        The numbers of units that finished and that failed.

    Raises:
        OSError, MachineError: what is no unit's own trouble, such as a full disk.
    """
    failed = 0
    for unit in block.units:
        key = str(unit.key)
        if parts.has_heads(key, unit.runs):
            continue
        if parts.failure(key) is None:
            with attempt(unit, parts, limit):
                parts.write_heads(key, unit.runs, _taken(unit, experiment))
        failed += parts.failure(key) is not None
    return len(block) - failed, failed


def _taken(unit: HeadUnit, experiment: Experiment) -> pa.Table:
    """The part of a unit, from the outputs that its model has."""
    source = cast(PredictionSource, unit.representation.model)
    digest = DigestMemory(experiment.cache_path).computed
    rows = []
    halves = [(seed, half) for seed in unit.runs if seed is not None for half in "ab"]
    for name, data in unit.task.evaluation.items():
        for seed, half in [*[(None, None)] * (None in unit.runs), *halves]:
            predictions = source.predictions(experiment.folder, unit.task, data, seed, half)
            score = scores_of(predictions[None], unit.task, unit.task.evaluation_targets[name])[0]
            row = {**head_row(name, seed, half, predictions, unit.task), "score": score}
            if unit.with_probabilities:
                found = source.predicted_probabilities(
                    experiment.folder, unit.task, data, seed, half
                )
                row["probabilities"] = encode_probabilities(found)
            rows.append(row)
        key = str(unit.features[name])
        require_unchanged(unit.representation, data, experiment.folder, digest, key)
    return pa.Table.from_pylist(rows, schema=HEAD_PART)
