"""Make a plan: models x tasks x seeds x pairs, minus what is there already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import cast

from td_ray import versions
from td_ray.errors import InputError
from td_ray.features import features_key
from td_ray.files import Digest, DigestMemory, fingerprint
from td_ray.head_kinds import HeadKind
from td_ray.measures import Measure, Need
from td_ray.measures.features import feature_measures
from td_ray.plan.resolve import Problem
from td_ray.plan.units import Block, FeatureUnit, HeadUnit, Plan, State, passes_of
from td_ray.registry import MEASURES, split_options
from td_ray.results.manifest import Manifest, read_manifest
from td_ray.results.parts import Parts, Run
from td_ray.tasks import FEATURE_EXAMPLES, Task
from td_ray.zoo import PredictionSource, Representation


def make_plan(problem: Problem, manifest: Manifest, parts: Parts, digest: Digest) -> Plan:
    """Expand, give every unit its fingerprint, and subtract the parts that are there.

    Raises:
        InputError: a measure needs what a head or a model does not have.
    """
    _check_probabilities(problem)
    _check_features(problem)
    _check_stand_ins(problem)
    parts.look()
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
    manifest = read_manifest(experiment.output_folder, experiment)
    digest = DigestMemory(experiment.cache_path).known
    return make_plan(problem, manifest, Parts(experiment.output_folder), digest)


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
            f"measure '{next(iter(measures))}' compares features, and model "
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
    found = (MEASURES.get(split_options(name)[0]) for name in problem.experiment.measures)
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
