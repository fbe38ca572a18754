"""The search of a unit: candidates compete on its validation rows, and one is chosen for good.

All candidates have one seed, apart from those of the runs, and see the training rows outside the
validation part. A candidate that was trained for longer beats one that was stopped; among equals,
the smaller validation loss wins, then the earlier candidate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from td_ray.errors import WorkError
from td_ray.head_kinds import Lap, SearchedKind
from td_ray.head_kinds.seeds import search_seed
from td_ray.plan import Block, HeadUnit
from td_ray.results.parts import Parts
from td_ray.results.schemas import SEARCH_PART
from td_ray.spec import Experiment
from td_ray.work.extracting import OpenFeatures
from td_ray.work.head_parts import attempt
from td_ray.work.heads import training_of
from td_ray.work.scaled_features import ScaledFeatures
from td_ray.work.time_limit import NO_LIMIT


def search_block(
    block: Block, experiment: Experiment, parts: Parts, open_features: OpenFeatures
) -> tuple[int, int]:
    """Train all candidates of a block's units to the end, and write a choice, or a failure, each.

    Returns:
        The numbers of units that chose and that failed.

    Raises:
        OSError, MachineError: what is no unit's own trouble, such as a full disk.
    """
    torch.set_num_threads(experiment.resources.cpus_per_trial)
    scaled = ScaledFeatures(open_features, experiment)
    failed = 0
    for unit in block.units:
        with attempt(unit, parts, NO_LIMIT) as stages:
            scaled.load(unit)
            stages.append("search")
            *_, laps = race(unit, unit.candidates, scaled)
            parts.write_choice(str(unit.key), choose(unit, laps))
        failed += parts.failure(str(unit.key)) is not None
    return len(block.units) - failed, failed


def race(
    unit: HeadUnit, candidates: Sequence[SearchedKind], features: ScaledFeatures
) -> Iterator[list[Lap]]:
    """Train candidates of a unit together; after each epoch, a lap of every one."""
    validation = unit.task.validation
    weights = (~validation).astype(np.float64)[None]
    training = training_of(unit, features, weights, [search_seed()])
    return candidates[0].race(training, candidates)


def choose(unit: HeadUnit, laps: Sequence[Lap]) -> pa.Table:
    """A unit's choice, as its part, from the last lap of each candidate.

    Raises:
        WorkError: no candidate is left; says what became of the first.
    """
    left = [number for number, lap in enumerate(laps) if lap.loss is not None]
    if not left:
        raise WorkError(f"all {len(laps)} candidates failed; the first: {laps[0].reason}")
    best = min(left, key=lambda number: (-laps[number].epochs, laps[number].loss, number))
    head = unit.head
    assert isinstance(head, SearchedKind)
    rows = [
        {
            "candidate": number,
            "hyperparameters": json.dumps(candidate.hyperparameters(), sort_keys=True),
            "epochs": lap.epochs,
            "loss": lap.loss,
            "chosen": number == best,
            "at_edge": head.at_edge(candidate),
            "reason": lap.reason,
        }
        for number, (candidate, lap) in enumerate(zip(unit.candidates, laps, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=SEARCH_PART)
