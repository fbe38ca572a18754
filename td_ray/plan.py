"""The plan: models x tasks x seeds x pairs, minus what is there already.

A unit of heads is one representation, one task and one head with all its runs (the full split
and each seed's two halves); it is fitted whole. Units of one representation that share a data
set form a block, which one trial works through. Pairs are cut into tiles on the numbers of the
representations, so that a zoo that grows keeps its tiles.

Measures of features need no heads. They compare the features themselves on some samples of each
evaluation split, which the block that opens the features keeps: a unit of features.
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
from td_ray.measures import Measure, Need
from td_ray.measures.features import feature_measures
from td_ray.registry import MEASURES
from td_ray.resolve import Problem
from td_ray.results.manifest import Manifest, read_manifest
from td_ray.results.parts import Parts, Run
from td_ray.tasks import FEATURE_EXAMPLES, DataSet, Task
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


def make_plan(problem: Problem, manifest: Manifest, parts: Parts, digest: Digest) -> Plan:
    """Expand, give every unit its fingerprint, and subtract the parts that are there.

    Raises:
        InputError: a measure needs what a head or a model does not have.
    """
    _check_probabilities(problem)
    _check_features(problem)
    _check_stand_ins(problem)
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
    kept = tuple(_feature_units(problem, numbers, digest))
    kept_states = tuple(_kept_state(unit, parts) for unit in kept)
    absent = {
        unit.key or position: unit
        for position, (unit, state) in enumerate(zip(kept, kept_states, strict=True))
        if state in ("missing", "unknown")
    }
    blocks, searches = _blocks(missing.values(), absent.values()), _blocks(undecided, ())
    return Plan(problem, manifest, tuple(units), tuple(states), kept, kept_states, blocks, searches)


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
    with_probabilities = task.is_classification and bool(_needing("probabilities", problem))
    with_training = bool(_needing("stand-ins", problem))
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
                *(["training"] if with_training else []),
            ]
        )
    runs: tuple[Run, ...] = (None, *problem.experiment.seeds) if has_seeds else (None,)
    written = (with_probabilities, with_training)
    return HeadUnit(key, number, representation, task, head, used, runs, *written)


def _feature_units(
    problem: Problem, numbers: Mapping[str, int], digest: Digest
) -> Iterable[FeatureUnit]:
    """One for each representation and data set that one of its tasks is evaluated on."""
    if not feature_measures(problem.experiment.measures):
        return
    for item in problem.representations:
        tasks = [task for task in problem.tasks if problem.has_task(item, task)]
        data = {name: each for task in tasks for name, each in task.evaluation.items()}
        for each in data.values():
            features = features_key(item, each, problem.experiment.folder, digest)
            decides = [features, each.evaluation_digest, FEATURE_EXAMPLES]
            key = None if features is None else fingerprint(decides)
            yield FeatureUnit(key, numbers[item.name], item, each, features)


def _kept_state(unit: FeatureUnit, parts: Parts) -> State:
    if unit.key is None:
        return "unknown"
    if parts.has_features(unit.key):
        return "finished"
    return "missing" if parts.failure(unit.key) is None else "failed"


def _check_features(problem: Problem) -> None:
    """Refuse models without the features that a measure needs."""
    measures = feature_measures(problem.experiment.measures)
    without = [x for x in problem.representations if isinstance(x.model, PredictionSource)]
    if measures and without:
        raise InputError(
            f"measure '{measures[0].name}' compares features, and model "
            f"'{without[0].model_name}' comes with predictions alone; leave out the measure or "
            "the model"
        )


def _check_stand_ins(problem: Problem) -> None:
    """Refuse heads and models that cannot stand in for others where a measure needs it."""
    measures = _needing("stand-ins", problem)
    if not measures:
        return
    needs = f"measure '{measures[0]}' fits heads that stand in for others"
    for task in problem.tasks:
        for head in problem.experiment.heads_for(task.spec):
            if not cast(HeadKind, head).has_stand_ins:
                raise InputError(
                    f"{needs}, which are solved (logistic, ridge), and head '{head.name}' "
                    f"({head.kind}) of task '{task.name}' is trained; leave out one of the two"
                )
    for item in problem.representations:
        if isinstance(item.model, PredictionSource):
            raise InputError(
                f"{needs}, and model '{item.model_name}' comes with predictions alone; leave out "
                "the measure or the model"
            )


def _needing(need: Need, problem: Problem) -> list[str]:
    """The experiment's measures of predictions that need more than these, by name."""
    found = (MEASURES.get(name) for name in problem.experiment.measures)
    return [each.name for each in found if isinstance(each, Measure) and need in each.needs]


def _check_probabilities(problem: Problem) -> None:
    """Refuse heads and models without the probabilities that a measure needs.

    A measure is not left out for some heads alone: it would be missing where it was asked for.
    """
    measures = _needing("probabilities", problem)
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


def _blocks(heads: Iterable[HeadUnit], kept: Iterable[FeatureUnit]) -> tuple[Block, ...]:
    grouped: dict[tuple[int, str], tuple[list[HeadUnit], list[FeatureUnit]]]
    grouped = defaultdict(lambda: ([], []))
    for unit in heads:
        grouped[unit.number, unit.task.spec.data][0].append(unit)
    for features in kept:
        grouped[features.number, features.data.name][1].append(features)
    passes = passes_of(grouped.values())
    blocks = []
    for units, features_of in grouped.values():
        representation = (units or features_of)[0].representation
        its_passes = passes[id(representation.model)]
        blocks.append(Block(representation, tuple(units), tuple(features_of), its_passes))
    return tuple(blocks)


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
