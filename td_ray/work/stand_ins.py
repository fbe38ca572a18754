"""Fit stand-ins, compare them with the heads that they are to reproduce, write tiles of pairs.

With a grid of penalties a stand-in has the one that its representation has chosen for the task.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from td_ray.errors import MachineError
from td_ray.heads import fit_targets
from td_ray.heads.stand_ins import predict_stand_ins
from td_ray.measures import Examples, Form, Outputs, find_measure
from td_ray.plan import HeadUnit
from td_ray.plan.stand_ins import StandInBlock, StandInUnit
from td_ray.plan.tiles import Member, StandInTile, tile_state
from td_ray.results.parts import Parts
from td_ray.results.schemas import pair_part
from td_ray.spec import Experiment
from td_ray.work.extracting import OpenFeatures
from td_ray.work.head_parts import named
from td_ray.work.heads import target_of
from td_ray.work.pairs import task_examples
from td_ray.work.predictions import Reader
from td_ray.work.scaled_features import ScaledFeatures
from td_ray.work.time_limit import NO_LIMIT, TimeLimit

HEADS_AT_ONCE = 8
"""Whose distances from their stand-ins are the diagonal of one small matrix."""

Floats = NDArray[np.float64]


def run_stand_ins(
    block: StandInBlock,
    experiment: Experiment,
    parts: Parts,
    open_features: OpenFeatures,
    limit: TimeLimit = NO_LIMIT,
) -> tuple[int, int]:
    """Fit the stand-ins of a block, and write the parts, or failures, of its tiles.

    Returns:
        The numbers of tiles that finished and that failed.

    Raises:
        OSError, MachineError: what is no stand-in's own trouble, such as a full disk.
    """
    torch.set_num_threads(experiment.resources.cpus_per_trial)
    work = _Work(experiment, ScaledFeatures(open_features, experiment), parts, limit)
    for unit in block.units:
        for rows in dict.fromkeys(tile.rows for tile in unit.tiles):
            tiles = [tile for tile in unit.tiles if tile.rows == rows]
            missing = [tile for tile in tiles if tile_state(tile, parts) == "missing"]
            if missing:
                _attempt(unit, rows, missing, work)
    finished = sum(parts.has_pairs(tile.key) for unit in block.units for tile in unit.tiles)
    return finished, len(block) - finished


@dataclass
class _Work:
    """What the units of a block share."""

    experiment: Experiment
    features: ScaledFeatures
    parts: Parts
    limit: TimeLimit
    reader: Reader = field(init=False)
    examples: dict[tuple[str, str], Examples] = field(default_factory=dict)

    def __post_init__(self) -> None:
        memory = self.experiment.resources.memory
        self.reader = Reader(self.parts, self.experiment.seeds, memory)

    def examples_of(self, unit: HeadUnit, data: str) -> Examples:
        """The examples of a unit's task on a data set."""
        key = (unit.task.name, data)
        if key not in self.examples:
            self.examples[key] = task_examples(unit.task, data, self.experiment.examples, {})
        return self.examples[key]


def _attempt(
    unit: StandInUnit, rows: tuple[Member, ...], tiles: Sequence[StandInTile], work: _Work
) -> None:
    """Try to reproduce the heads of some rows; what goes wrong is the failure of their tiles."""
    started = time.perf_counter()

    def failed(error: Exception) -> None:
        for tile in tiles:
            work.parts.write_failure(tile.key, "pairs", named(unit.head, error, "pairs"))

    try:
        with work.limit.of_unit(failed):
            for tile, table in zip(tiles, _tables(unit.head, rows, tiles, work), strict=True):
                work.parts.write_pairs(tile.key, table)
                work.parts.clear_failure(tile.key)
    except (OSError, MachineError):
        raise
    except Exception as error:  # one stand-in's trouble costs that stand-in alone
        failed(error)
    seconds = time.perf_counter() - started
    work.parts.write_timing(tiles[0].key, "pairs", seconds, platform.node())


def _tables(
    unit: HeadUnit, rows: tuple[Member, ...], tiles: Sequence[StandInTile], work: _Work
) -> list[pa.Table]:
    """The parts of tiles that have the same rows, and predict different data sets."""
    wanted = np.any([tile.wanted[:, 0] for tile in tiles], axis=0)
    members = tuple(member for member, is_wanted in zip(rows, wanted, strict=True) if is_wanted)
    work.features.load(unit)
    training = work.features.training(unit)
    targets = [
        target_of(unit.task, work.reader.training(member)[0], training.device) for member in members
    ]
    own = Member(unit.number, str(unit.key))
    penalty = work.reader.training(own)[1]
    memory = work.features.memory_left()
    fit = partial(fit_targets, unit.head.kind, training, l2=penalty, memory_bytes=memory)
    evaluated = [work.features.evaluation(unit, tile.data) for tile in tiles]
    predicted = predict_stand_ins(fit, targets, evaluated)
    return [
        _table(tile, members, found.numpy(), work.examples_of(unit, tile.data), work.reader)
        for tile, found in zip(tiles, predicted, strict=True)
    ]


def _table(
    tile: StandInTile,
    members: tuple[Member, ...],
    reproduced: NDArray[np.generic],
    examples: Examples,
    reader: Reader,
) -> pa.Table:
    """The part of one tile, from what stand-ins (members, n) predict."""
    form = find_measure(tile.measure).form(tile.kind, tile.distance)
    heads = reader.read(members, tile.data, examples).full
    if examples.chosen is not None:
        reproduced = reproduced[:, examples.chosen]
    stand_ins = Outputs(reproduced.astype(heads.predicted.dtype), examples)
    values, errors = _each_with_its_own(form, heads, stand_ins)
    (stand_in,) = tile.columns
    return pair_part(
        {
            "a": np.array([member.number for member in members]),
            "b": np.full(len(members), stand_in.number),
            "value": values,
            "se": errors,
            "n_examples": np.full(len(members), examples.blocks.examples),
            "n_seeds": np.zeros(len(members), dtype=np.int32),
            "reason": [form.undefined if missing else None for missing in np.isnan(values)],
        }
    )


def _each_with_its_own(form: Form, heads: Outputs, stand_ins: Outputs) -> tuple[Floats, Floats]:
    """(H,) distances of heads from their own stand-ins, and their standard errors."""
    found = []
    for start in range(0, len(heads), HEADS_AT_ONCE):
        some = slice(start, start + HEADS_AT_ONCE)
        found.append([np.diagonal(x) for x in form.with_errors(heads[some], stand_ins[some])])
    values, errors = (np.concatenate(each) for each in zip(*found, strict=True))
    return values, errors
