"""What is written down of a unit of heads: its rows, or its failure; needs no torch."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import MachineError, WorkError, error_text
from td_ray.plan import Block, FeatureUnit, HeadUnit
from td_ray.results.parts import Parts, Run
from td_ray.tasks import Task
from td_ray.work.time_limit import TimeLimit


@contextmanager
def attempt(unit: HeadUnit | FeatureUnit, parts: Parts, limit: TimeLimit) -> Iterator[list[str]]:
    """Try a unit: what goes wrong becomes its failure, and the time it took is written down.

    Args:
        limit: on the time that it may take.

    Yields:
        The stages that it has reached, to append to; ``features`` at first.

    Raises:
        OSError, MachineError: not the unit's own trouble: it stays missing.
    """
    key, started, stages = str(unit.key), time.perf_counter(), ["features"]

    def late(error: WorkError) -> None:
        parts.write_failure(key, stages[-1], WorkError(f"{names_of(unit)}: {error}"))

    try:
        with limit.of_unit(late):
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
    return WorkError(f"{names_of(unit)}: {error_text(error)}")


def names_of(unit: HeadUnit | FeatureUnit) -> str:
    """The names of a unit, for errors."""
    who = f"model '{unit.representation.model_name}' at '{unit.representation.layer}'"
    if isinstance(unit, FeatureUnit):
        return f"{who} on data set '{unit.data.name}'"
    return f"{who}, task '{unit.task.name}', head '{unit.head.name}'"


def units_left(block: Block, parts: Parts) -> list[HeadUnit | FeatureUnit]:
    """Units of a block that have neither a part nor a failure, in the order of the work."""
    units = [unit for unit in block.units if not parts.has_heads(str(unit.key), unit.runs)]
    kept = [unit for unit in block.kept if not parts.has_features(str(unit.key))]
    left: list[HeadUnit | FeatureUnit] = [*kept, *units]
    return [unit for unit in left if parts.failure(str(unit.key)) is None]


def scores_of(
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


def head_row(
    name: str, seed: Run, half: str | None, predictions: NDArray[Any], task: Task
) -> dict[str, Any]:
    """The columns of a row that all heads have, with what the head predicts on a data set (n,)."""
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


def encode_training(predictions: NDArray[Any], task: Task) -> bytes:
    """Store predictions on the training split (n_train,): the same codes, or values in float64.

    These are targets of other heads. What float32 can hold of them is another matter than what it
    can hold of the predictions beside them, whose encoding the row names.
    """
    if task.is_classification:
        return encode(predictions, task)[0]
    return (predictions - task.center).astype("<f8").tobytes()


def encode_probabilities(probabilities: NDArray[Any]) -> bytes:
    """Store probabilities (n, C): float32, little-endian, row by row."""
    return probabilities.astype("<f4").tobytes()
