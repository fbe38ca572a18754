"""What comparing the pairs that a plan has left takes, at the prices of a calibration."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from td_ray.costs import Calibration, Counts
from td_ray.head_kinds.exact import ExactHead
from td_ray.measures import Measure, fits_stand_ins, fitting
from td_ray.measures.features import feature_measures
from td_ray.plan.estimate import stand_ins_left
from td_ray.plan.tiles import (
    LARGEST_OF_FEATURES,
    StandInTile,
    Tile,
    feature_examples,
    tile_size,
    tile_state,
)
from td_ray.plan.units import FeatureUnit, HeadUnit, Plan
from td_ray.plan.widths import Widths
from td_ray.results.parts import Parts
from td_ray.spec import TaskSpec

Comparison = tuple[str | None, str | None, str, str]
"""Task and head, or None for features; data set; measure."""


@dataclass(frozen=True)
class PricedPairs:
    """Comparisons that are left.

    Attributes:
        seconds: of one core; those of stand-ins too.
        pieces: that can be compared at the same time.
        rows: of the tables that come of them.
        guesses: what the prices take for granted, for people.
    """

    seconds: float
    pieces: int
    rows: int
    guesses: frozenset[str]


@dataclass(frozen=True)
class _Pairs:
    """All wanted pairs of one comparison.

    Attributes:
        size: members of a tile's side.
        work: what one pair consists of.
        rows: that each pair makes.
    """

    comparison: Comparison
    count: int
    size: int
    work: Counts
    rows: int


def price_pairs(
    plan: Plan, parts: Parts, tiles: Sequence[Tile], calibration: Calibration
) -> PricedPairs:
    """Price what is left, of all units but those that have failed.

    Args:
        tiles: of the units that are there.
    """
    ended: Counter[Comparison] = Counter()
    for tile in tiles:
        if not isinstance(tile, StandInTile) and tile_state(tile, parts) != "missing":
            ended[tile.task, tile.head, tile.data, tile.measure] += tile.n_pairs
    stand_ins = _stand_ins(plan, parts, tiles, calibration)
    seconds, pieces = sum(each for each, _ in stand_ins), len(stand_ins)
    rows = sum(each for _, each in stand_ins)
    guesses: set[str] = set()
    for pairs in (*_of_heads(plan), *_of_features(plan)):
        measure = pairs.comparison[-1]
        left = pairs.count - ended[pairs.comparison]
        if not left:
            continue
        if measure.partition("(")[0] not in calibration.measures:
            guesses.add(f"that pairs of '{measure}' cost what those of td do")
        seconds += calibration.comparisons(pairs.work * left, measure)
        pieces += -(-left // pairs.size**2)
        rows += left * pairs.rows
    return PricedPairs(seconds, pieces, rows, frozenset(guesses))


def _of_heads(plan: Plan) -> Iterator[_Pairs]:
    experiment = plan.problem.experiment
    units: dict[tuple[str, str], list[HeadUnit]] = defaultdict(list)
    for unit, state in zip(plan.units, plan.states, strict=True):
        if state != "failed":
            units[unit.task.name, unit.head.name].append(unit)
    for line, members in units.items():
        task, count = members[0].task, _count(plan, members)
        for name in task.evaluation:
            examples = int(task.evaluation_rows(name).sum())
            examples = min(examples, experiment.examples or examples)
            size = tile_size(experiment, members[0], name)
            for measure in fitting(experiment.measures, task.spec.kind):
                if not fits_stand_ins(measure.name):
                    work = pair_counts(measure, task.spec, examples, len(task.classes), plan)
                    rows = 1 if measure.is_symmetric else 2
                    yield _Pairs((*line, name, measure.name), count, size, work, rows)


def _count(plan: Plan, members: Sequence[HeadUnit] | Sequence[FeatureUnit]) -> int:
    wanted = plan.problem.wanted
    return wanted.count(wanted.positions(unit.representation for unit in members))


def pair_counts(
    measure: Measure, spec: TaskSpec, examples: int, n_classes: int, plan: Plan
) -> Counts:
    """What a pair of heads consists of: heads on the full split, and the four pairs of halves.

    Labels are compared bit by bit; values have 32 bits, and so have probabilities of each class.
    """
    compared = examples * (1 + 4 * len(plan.problem.experiment.seeds))
    numbers = n_classes if "probabilities" in measure.needs else 1
    bits = math.log2(max(2, n_classes)) if spec.kind == "classification" else 32.0
    return Counts(float(compared * numbers), compared * bits / 8, 1.0)


def _of_features(plan: Plan) -> Iterator[_Pairs]:
    experiment, widths = plan.problem.experiment, Widths(plan.problem.experiment)
    kept: dict[str, list[FeatureUnit]] = defaultdict(list)
    for unit, state in zip(plan.kept, plan.kept_states, strict=True):
        if state != "failed":
            kept[unit.data.name].append(unit)
    for name, members in kept.items():
        count = _count(plan, members)
        examples = feature_examples(members[0].data, experiment.examples)
        size = experiment.resources.tile or LARGEST_OF_FEATURES
        known = [widths.of(each.representation, {name: each.features}) for each in members]
        work = feature_pair_counts(examples, sum(known) // len(known))
        for measure in feature_measures(experiment.measures):
            yield _Pairs((None, None, name, measure), count, size, work, 1)


def feature_pair_counts(examples: int, width: int) -> Counts:
    """What a pair of features (examples, width) consists of: a product of two such matrices."""
    return Counts(2.0 * examples * width * min(examples, width), 4.0 * examples * width, 1.0)


def _stand_ins(
    plan: Plan, parts: Parts, tiles: Sequence[Tile], calibration: Calibration
) -> list[tuple[float, int]]:
    """Seconds of the stand-ins that each unit has left to fit, and the rows of pairs they make."""
    units = [
        unit
        for unit, state in zip(plan.units, plan.states, strict=True)
        if unit.with_training and state != "failed"
    ]
    left = stand_ins_left(plan, tiles, parts) if units else {}
    found: list[tuple[float, int]] = []
    widths = Widths(plan.problem.experiment)
    for unit in units:
        targets = left[unit.number, unit.task.name, unit.head.name]
        if targets:
            head = cast(ExactHead, unit.head)
            width = widths.of(unit.representation, unit.features)
            size = (unit.task.n_train, width, len(unit.task.classes) or 1)
            work = head.counts_of_stand_ins(*size, targets)
            rows = targets * len(unit.task.evaluation)
            found.append((calibration.cpu.fits(work, head.kind), rows))
    return found
