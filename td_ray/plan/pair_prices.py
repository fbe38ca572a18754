"""What comparing the wanted pairs of a plan takes, at the prices of a calibration."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from td_ray.costs import Calibration, Counts
from td_ray.head_kinds.exact import ExactHead
from td_ray.measures import Measure, fits_stand_ins, fitting
from td_ray.measures.features import feature_measures
from td_ray.plan.estimate import stand_ins_left
from td_ray.plan.tiles import LARGEST_OF_FEATURES, feature_examples, plan_tiles, tile_size
from td_ray.plan.units import HeadUnit, Plan
from td_ray.plan.widths import Widths
from td_ray.results.parts import Parts
from td_ray.spec import TaskSpec


@dataclass(frozen=True)
class PricedPairs:
    """All wanted comparisons.

    Attributes:
        seconds: of one core; those of stand-ins too.
        pieces: that can be compared at the same time.
        rows: of the tables that come of them.
    """

    seconds: float
    pieces: int
    rows: int


def price_pairs(plan: Plan, parts: Parts, calibration: Calibration) -> PricedPairs:
    """All wanted comparisons of a plan, those that are there already included; stand-ins left."""
    seconds, pieces, rows = 0.0, 0, 0
    for pairs, members, size, work, measure in (*_of_heads(plan), *_of_features(plan)):
        seconds += calibration.comparisons(work * pairs, measure)
        ranges = -(-members // size)
        pieces += ranges * (ranges + 1) // 2
        rows += pairs
    stand_ins = _stand_ins(plan, parts, calibration)
    return PricedPairs(seconds + sum(stand_ins), pieces + len(stand_ins), rows)


Compared = tuple[int, int, int, Counts, str]
"""Pairs, members, members of a tile's side, what one pair consists of, the measure."""


def _of_heads(plan: Plan) -> Iterator[Compared]:
    experiment, problem = plan.problem.experiment, plan.problem
    units: dict[tuple[str, str], list[HeadUnit]] = defaultdict(list)
    for unit in plan.units:
        units[unit.task.name, unit.head.name].append(unit)
    for members in units.values():
        task = members[0].task
        pairs = problem.wanted.count(
            problem.wanted.positions(unit.representation for unit in members)
        )
        for name in task.evaluation:
            examples = int(task.evaluation_rows(name).sum())
            examples = min(examples, experiment.examples or examples)
            size = tile_size(experiment, members[0], name)
            for measure in fitting(experiment.measures, task.spec.kind):
                if not fits_stand_ins(measure.name):
                    work = pair_counts(measure, task.spec, examples, len(task.classes), plan)
                    yield pairs, len(members), size, work, measure.name


def pair_counts(
    measure: Measure, spec: TaskSpec, examples: int, n_classes: int, plan: Plan
) -> Counts:
    """What a pair of heads consists of: heads on the full split, and the four pairs of halves."""
    compared = examples * (1 + 4 * len(plan.problem.experiment.seeds))
    numbers = n_classes if "probabilities" in measure.needs else 1
    bits = math.log2(max(2, n_classes)) if spec.kind == "classification" else 32.0
    return Counts(float(compared * numbers), float(compared * bits), 1.0)


def _of_features(plan: Plan) -> Iterator[Compared]:
    problem, experiment = plan.problem, plan.problem.experiment
    widths = Widths(experiment)
    for name in {unit.data.name for unit in plan.kept}:
        kept = [unit for unit in plan.kept if unit.data.name == name]
        pairs = problem.wanted.count(problem.wanted.positions(unit.representation for unit in kept))
        examples = feature_examples(kept[0].data, experiment.examples)
        size = experiment.resources.tile or LARGEST_OF_FEATURES
        width = sum(widths.of(x.representation, {name: x.features}) for x in kept) // len(kept)
        for measure in feature_measures(experiment.measures):
            yield pairs, len(kept), size, feature_pair_counts(examples, width), measure


def feature_pair_counts(examples: int, width: int) -> Counts:
    """What a pair of features (examples, width) consists of: a product of two such matrices."""
    return Counts(2.0 * examples * width * min(examples, width), 4.0 * examples * width, 1.0)


def _stand_ins(plan: Plan, parts: Parts, calibration: Calibration) -> list[float]:
    """Seconds of the stand-ins that each unit has left to fit."""
    left = stand_ins_left(plan, plan_tiles(plan, parts), parts)
    found, widths = [], Widths(plan.problem.experiment)
    for unit in (unit for unit in plan.units if unit.with_training):
        targets = left[unit.number, unit.task.name, unit.head.name]
        if targets:
            head = cast(ExactHead, unit.head)
            width = widths.of(unit.representation, unit.features)
            size = (unit.task.n_train, width, len(unit.task.classes) or 1)
            work = head.counts_of_stand_ins(*size, targets)
            found.append(calibration.cpu.fits(work, head.kind))
    return found
