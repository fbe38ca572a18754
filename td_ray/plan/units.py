"""What a plan consists of: units of work, blocks of those that share features, and the plan itself.

A unit of heads is one representation, one task and one head with all its runs (the full split
and each seed's two halves); it is fitted whole. Units of one representation that share a data
set form a block, which one trial works through.

Measures of features need no heads. They compare the features themselves on some samples of each
evaluation split, which the block that opens the features keeps: a unit of features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from td_ray.features import Pass
from td_ray.head_kinds import HeadKind, SearchedKind
from td_ray.plan.resolve import Problem
from td_ray.results.manifest import Manifest
from td_ray.results.parts import Run
from td_ray.tasks import DataSet, Task
from td_ray.zoo import FeatureSource, PredictionSource, Representation

State = Literal["finished", "failed", "missing", "unknown"]


@dataclass(frozen=True)
class HeadUnit:
    """One representation, one task, one head: what is fitted together.

    Attributes:
        key: fingerprint of all that decides the heads but the runs; None where a digest of a
            large file is not known yet.
        number: of the representation.
        features: key of the features (or stored predictions) by data set.
        runs: those to fit: None for the full training split, and seeds.
        with_probabilities: whether probabilities of the classes are written down too.
        with_training: whether predictions on the training split are.
    """

    key: str | None
    number: int
    representation: Representation
    task: Task
    head: HeadKind
    features: Mapping[str, str | None]
    runs: tuple[Run, ...]
    with_probabilities: bool = False
    with_training: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether the predictions are there already, and no head is fitted."""
        return isinstance(self.representation.model, PredictionSource)

    @cached_property
    def candidates(self) -> Sequence[SearchedKind]:
        """The heads to choose from, once, before any is fitted; none where nothing is searched."""
        if self.is_stored or not isinstance(self.head, SearchedKind):
            return ()
        candidates = self.head.candidates()
        return candidates if len(candidates) > 1 else ()

    @property
    def is_searched(self) -> bool:
        """Whether there are several candidates."""
        return bool(self.candidates)


@dataclass(frozen=True)
class FeatureUnit:
    """The features of one representation on some evaluation samples, kept for measures of them.

    Attributes:
        key: fingerprint of all that decides them; None where a digest is not known yet.
        number: of the representation.
        data: the data set.
        features: key of the features on the whole data set.
    """

    key: str | None
    number: int
    representation: Representation
    data: DataSet
    features: str | None


@dataclass(frozen=True)
class Block:
    """The missing units of one representation on one data set; they share its features.

    Attributes:
        units: of heads.
        kept: units of features.
        passes: of its model, by the data set on which features are needed.
    """

    representation: Representation
    units: tuple[HeadUnit, ...]
    kept: tuple[FeatureUnit, ...]
    passes: Mapping[str, Pass]

    def __len__(self) -> int:
        return len(self.units) + len(self.kept)

    @property
    def is_stored(self) -> bool:
        """Whether its model has its predictions already, and no features."""
        return isinstance(self.representation.model, PredictionSource)

    @property
    def feature_keys(self) -> list[str]:
        """Keys of the features that it opens."""
        keys = [key for unit in self.units for key in unit.features.values()]
        return [str(key) for key in (*keys, *(unit.features for unit in self.kept))]


@dataclass(frozen=True)
class Plan:
    """What an experiment needs, and how much of it is there.

    Attributes:
        units: all units of heads, each with all its runs.
        states: of these, in the same order.
        kept: all units of features; none without a measure of them.
        kept_states: of these.
        blocks: what is left to fit and to keep.
        searches: those of its units that have to choose among candidates first.
    """

    problem: Problem
    manifest: Manifest
    units: tuple[HeadUnit, ...]
    states: tuple[State, ...]
    kept: tuple[FeatureUnit, ...]
    kept_states: tuple[State, ...]
    blocks: tuple[Block, ...]
    searches: tuple[Block, ...]

    def count(self, state: State) -> int:
        """The number of units in a state."""
        return self.states.count(state) + self.kept_states.count(state)


def fits_of(unit: HeadUnit) -> int:
    """How many heads a unit has: one on the full split, and two for each seed."""
    return sum(1 if run is None else 2 for run in unit.runs)


def passes_of(
    groups: Iterable[tuple[Sequence[HeadUnit], Sequence[FeatureUnit]]],
) -> dict[int, dict[str, Pass]]:
    """By model: the layers whose features are needed, one pass for each data set."""
    passes: dict[int, dict[str, Pass]] = defaultdict(dict)

    def need(representation: Representation, data: DataSet, key: str | None) -> None:
        model = representation.model
        if isinstance(model, FeatureSource):
            known = passes[id(model)].get(data.name, Pass(model, data, {}))
            keys = {**known.keys, representation.layer: str(key)}
            passes[id(model)][data.name] = replace(known, keys=keys)

    for heads, kept in groups:
        for unit in heads:
            data = {unit.task.spec.data: unit.task.data, **unit.task.evaluation}
            for name, key in unit.features.items():
                need(unit.representation, data[name], key)
        for features in kept:
            need(features.representation, features.data, features.features)
    return passes
