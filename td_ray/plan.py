"""The plan: models x tasks x seeds x pairs, minus what is there already.

A unit of heads is one representation, one task and one head with all its runs (the full split
and each seed's two halves); it is fitted whole. Units of one representation that share a data
set form a block, which one trial works through. Pairs are cut into tiles on the numbers of the
representations, so that a zoo that grows keeps its tiles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, cast

from td_ray import versions
from td_ray.errors import InputError
from td_ray.features import Pass, features_key
from td_ray.files import Digest, DigestMemory, fingerprint
from td_ray.head_kinds import HeadKind, SearchedKind
from td_ray.measures import Measure
from td_ray.registry import MEASURES
from td_ray.resolve import Problem
from td_ray.results.manifest import Manifest, read_manifest
from td_ray.results.parts import Parts, Run
from td_ray.tasks import Task
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
    """

    key: str | None
    number: int
    representation: Representation
    task: Task
    head: HeadKind
    features: Mapping[str, str | None]
    runs: tuple[Run, ...]
    with_probabilities: bool = False

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
class Block:
    """The missing units of one representation on one data set; they share its features.

    Attributes:
        passes: of its model, by the data set on which features are needed.
    """

    units: tuple[HeadUnit, ...]
    passes: Mapping[str, Pass]

    @property
    def representation(self) -> Representation:
        """The representation that its units share."""
        return self.units[0].representation


@dataclass(frozen=True)
class Plan:
    """What an experiment needs, and how much of it is there.

    Attributes:
        units: all units, each with all its runs.
        states: of the units, in the same order.
        blocks: what is left to fit.
        searches: those of its units that have to choose among candidates first.
    """

    problem: Problem
    manifest: Manifest
    units: tuple[HeadUnit, ...]
    states: tuple[State, ...]
    blocks: tuple[Block, ...]
    searches: tuple[Block, ...]

    def count(self, state: State) -> int:
        """The number of units in a state."""
        return self.states.count(state)


def make_plan(problem: Problem, manifest: Manifest, parts: Parts, digest: Digest) -> Plan:
    """Expand, give every unit its fingerprint, and subtract the parts that are there.

    Raises:
        InputError: a measure needs what a head or a model does not have.
    """
    _check_probabilities(problem)
    manifest = manifest.with_arrivals([item.name for item in problem.representations])
    numbers = {name: number for number, name in enumerate(manifest.representations)}
    units: list[HeadUnit] = []
    for representation in problem.representations:
        number = numbers[representation.name]
        units.extend(_units_of(problem, representation, number, digest))
    states: list[State] = []
    missing: dict[object, HeadUnit] = {}
    for position, unit in enumerate(units):
        state, left = _state(unit, parts)
        states.append(state)
        if left is not None:
            missing.setdefault(left.key or position, left)  # equal work is done once
    searched = [unit for unit in missing.values() if unit.is_searched]
    undecided = [unit for unit in searched if not parts.has_choice(str(unit.key))]
    blocks, searches = _blocks(missing.values()), _blocks(undecided)
    return Plan(problem, manifest, tuple(units), tuple(states), blocks, searches)


def plan_as_known(problem: Problem) -> Plan:
    """The plan as far as it can be told without reading large files."""
    experiment = problem.experiment
    manifest = read_manifest(experiment.output_path, experiment)
    digest = DigestMemory(experiment.cache_path).known
    return make_plan(problem, manifest, Parts(experiment.output_path), digest)


def _units_of(
    problem: Problem, representation: Representation, number: int, digest: Digest
) -> Iterable[HeadUnit]:
    folder = problem.experiment.folder
    keys: dict[str, str | None] = {}
    for task in problem.tasks:
        if not problem.has_task(representation, task):
            continue
        for name in representation.model.data_sets(task.spec):
            if name not in keys:
                keys[name] = features_key(representation, problem.data[name], folder, digest)
        used = {name: keys[name] for name in representation.model.data_sets(task.spec)}
        for head in problem.experiment.heads_for(task.spec):
            yield _unit(problem, representation, number, task, cast(HeadKind, head), used, digest)


def _unit(
    problem: Problem,
    representation: Representation,
    number: int,
    task: Task,
    head: HeadKind,
    used: Mapping[str, str | None],
    digest: Digest,
) -> HeadUnit:
    model = representation.model
    is_stored = isinstance(model, PredictionSource)
    has_seeds = not isinstance(model, PredictionSource) or model.has_halves
    evaluated = {name: used[name] for name in task.evaluation}
    target = task.target.identity(digest)
    with_probabilities = task.is_classification and bool(_measures_of_probabilities(problem))
    fitted = [] if is_stored else [used[task.spec.data], head.identity()]
    key = None
    if target is not None and all(used.values()):
        key = fingerprint(
            [
                versions.HEADS,
                versions.SPLITS,
                fitted,
                [[name, evaluated[name], task.evaluation[name].split_digest] for name in evaluated],
                task.data.split_digest,
                target,
                task.name if is_stored else None,
                *(["probabilities"] if with_probabilities else []),
            ]
        )
    runs: tuple[Run, ...] = (None, *problem.experiment.seeds) if has_seeds else (None,)
    return HeadUnit(key, number, representation, task, head, used, runs, with_probabilities)


def _measures_of_probabilities(problem: Problem) -> list[str]:
    """The experiment's measures that need probabilities, by name."""
    found = (MEASURES.get(name) for name in problem.experiment.measures)
    return [x.name for x in found if isinstance(x, Measure) and "probabilities" in x.needs]


def _check_probabilities(problem: Problem) -> None:
    """Refuse heads and models without the probabilities that a measure needs.

    A measure is not left out for some heads alone: it would be missing where it was asked for.
    """
    measures = _measures_of_probabilities(problem)
    if not measures:
        return
    needs = f"measure '{measures[0]}' needs probabilities of the classes"
    for task in (task for task in problem.tasks if task.is_classification):
        for head in problem.experiment.heads_for(task.spec):
            if not cast(HeadKind, head).has_probabilities:
                raise InputError(
                    f"{needs}, and head '{head.name}' ({head.kind}) has none for task "
                    f"'{task.name}'; leave out the measure, or the head for classification"
                )
        for item in problem.representations:
            model = item.model
            if not (isinstance(model, PredictionSource) and problem.has_task(item, task)):
                continue
            if not model.has_probabilities:
                raise InputError(
                    f"{needs}, and model '{item.model_name}' comes with predictions alone; name "
                    'the arrays that hold them, such as probabilities: "{task}-probabilities", '
                    "or leave out the measure or the model"
                )


def _state(unit: HeadUnit, parts: Parts) -> tuple[State, HeadUnit | None]:
    """The state of a unit, and what of it is left to do."""
    if unit.key is None:
        return "unknown", unit
    there = parts.head_files(unit.key)
    left = tuple(run for run in unit.runs if run not in there)
    if not left:
        return "finished", None
    if parts.failure(unit.key) is not None:
        return "failed", None
    values = {name: getattr(unit, name) for name in unit.__dataclass_fields__}
    return "missing", HeadUnit(**{**values, "runs": left})


def _blocks(units: Iterable[HeadUnit]) -> tuple[Block, ...]:
    grouped: dict[tuple[int, str], list[HeadUnit]] = defaultdict(list)
    for unit in units:
        grouped[unit.number, unit.task.spec.data].append(unit)
    passes = _passes(unit for group in grouped.values() for unit in group)
    return tuple(
        Block(tuple(group), passes[id(group[0].representation.model)]) for group in grouped.values()
    )


def _passes(units: Iterable[HeadUnit]) -> dict[int, dict[str, Pass]]:
    """By model: the layers whose features are needed, one pass for each data set."""
    passes: dict[int, dict[str, Pass]] = defaultdict(dict)
    for unit in units:
        model = unit.representation.model
        if not isinstance(model, FeatureSource):
            continue
        data = {unit.task.spec.data: unit.task.data, **unit.task.evaluation}
        for name, key in unit.features.items():
            known = passes[id(model)].get(name, Pass(model, data[name], {}))
            keys = {**known.keys, unit.representation.layer: str(key)}
            passes[id(model)][name] = replace(known, keys=keys)
    return passes
