"""An experiment with its files looked at: data sets, tasks, representations, and their checks.

Everything that can be seen without a heavy library is found here, before anything is spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from td_ray.errors import InputError
from td_ray.measures.features import feature_measures
from td_ray.plan.selection import WantedPairs, select_pairs
from td_ray.registry import MEASURES, closest, split_options
from td_ray.spec import Experiment
from td_ray.tasks import DataSet, Task, resolve_tasks, used_sources
from td_ray.zoo import Representation, resolve_representations

# With more samples outside the largest class, a half without any of them does not happen.
FEW = 64


@dataclass(frozen=True)
class Problem:
    """An experiment whose names stand for things that are there.

    Attributes:
        data: data sets that tasks use, by name.
        representations: those that some wanted pair needs.
        wanted: which pairs the experiment asks for.
    """

    experiment: Experiment
    data: Mapping[str, DataSet]
    tasks: tuple[Task, ...]
    representations: tuple[Representation, ...]
    wanted: WantedPairs

    def has_task(self, representation: Representation, task: Task) -> bool:
        """Whether a representation takes part in a task."""
        return representation.model.takes(task.spec.name)


def resolve(experiment: Experiment) -> Problem:
    """Look at the files an experiment names.

    Raises:
        InputError: the first thing that is wrong.
    """
    _check_measures(experiment)
    everything = resolve_representations(experiment)
    wanted = select_pairs(experiment.pairs, everything, experiment.folder)
    representations = tuple(everything[position] for position in wanted.needed())
    data = load_data(experiment)
    if experiment.samples == "intersect":
        data = {name: _shared(each, representations, experiment) for name, each in data.items()}
    tasks = tuple(resolve_tasks(experiment.tasks, data))
    for task in tasks:
        _check_halves(task, experiment.seeds)
    _check_examples(experiment.examples, tasks)
    _check_representations(experiment, tasks, representations, data)
    return Problem(experiment, data, tasks, representations, wanted)


def _check_measures(experiment: Experiment) -> None:
    """Refuse unfit options, and a measure of predictions that compares none of the tasks' kinds."""
    try:
        of_features = feature_measures(experiment.measures)
    except InputError as error:
        raise InputError(f"measures: {error}") from None
    for name in (each for each in experiment.measures if each not in of_features):
        plain, options = split_options(name)
        if options:
            raise InputError(f"measures: measure '{plain}' has no options; found '{name}'")
        kinds = getattr(MEASURES.get(plain), "kinds", None)
        if kinds is not None and not any(task.kind in kinds for task in experiment.tasks):
            tasks = ", ".join(f"'{task.name}' ({task.kind})" for task in experiment.tasks)
            raise InputError(
                f"measure '{name}' compares tasks of kind {' and '.join(kinds)}, and there is "
                f"none: {tasks}; leave it out of 'measures', or add such a task"
            )


def load_data(experiment: Experiment) -> dict[str, DataSet]:
    """The data sets that tasks use, by name.

    Raises:
        InputError: one that cannot be read or cut.
    """
    return {
        source.name: source.load(experiment.folder, experiment.cache_path)
        for source in used_sources(experiment)
    }


def _shared(
    data: DataSet, representations: Sequence[Representation], experiment: Experiment
) -> DataSet:
    """The samples of a data set that all models which are asked for it have.

    Raises:
        InputError: none are left of a split.
    """
    shared = np.ones(data.n, dtype=np.bool_)
    fewest: tuple[int, str] = (data.n, "")
    for model in {id(item.model): item.model for item in representations}.values():
        lines = (task for task in experiment.tasks if model.takes(task.name))
        if not any(data.name in model.data_sets(line) for line in lines):
            continue
        try:
            own = model.has_samples(experiment.folder, data)
        except InputError as error:
            raise InputError(f"model '{model.name}': {error}") from None
        shared &= own
        fewest = min(fewest, (int(own.sum()), str(model.name)))
    for split, rows in (("training", data.training), ("evaluation", data.evaluation)):
        if not (shared & rows).any():
            raise InputError(
                f"samples: intersect leaves none of the {split} split of data set '{data.name}'; "
                f"model '{fewest[1]}' has the fewest, {fewest[0]} of {data.n}"
            )
    return data.shared(shared)


def _check_halves(task: Task, seeds: tuple[int, ...]) -> None:
    """Refuse a cut that leaves one class alone in a half: there is nothing to tell apart."""
    data = task.data
    if data.groups is not None and seeds:
        data.halves(seeds[0])  # there are none where the training split is a single group
    if not task.is_classification or task.target.reads_inputs:
        return
    counts = np.bincount(task.train_target)
    if counts.sum() - counts.max() > FEW:
        return
    for seed in seeds:
        for half in task.halves(seed):
            if len(np.unique(task.train_target[half])) < 2:
                raise InputError(
                    f"task '{task.name}': with seed {seed} a half of the training split has a "
                    f"single class; stratify data set '{data.name}' by '{task.spec.target}', use "
                    "other seeds, or seeds: 0 for no noise floor"
                )


def _check_examples(examples: int | None, tasks: tuple[Task, ...]) -> None:
    sizes = (len(data.evaluation_ids) for task in tasks for data in task.evaluation.values())
    most = max(sizes, default=0)
    if examples is not None and examples > most:
        raise InputError(
            f"examples: pairs are to be estimated on {examples:,} samples, and no task predicts "
            f"more than {most:,}; ask for fewer, or leave it out to compare on all"
        )


def _check_representations(
    experiment: Experiment,
    tasks: tuple[Task, ...],
    representations: tuple[Representation, ...],
    data: Mapping[str, DataSet],
) -> None:
    task_names = {task.name for task in experiment.tasks}
    for item in representations:
        for glob in item.model.tasks:
            if not any(fnmatchcase(name, glob) for name in task_names):
                hint = closest(glob, task_names)
                raise InputError(f"model '{item.model_name}': no task is called '{glob}': {hint}")
        taken = [task for task in tasks if item.model.takes(task.spec.name)]
        for dataset in data.values():
            users = [task.name for task in taken if dataset.name in item.model.data_sets(task.spec)]
            try:
                if users:
                    item.model.check(experiment.folder, dataset, users)
            except InputError as error:
                raise InputError(f"model '{item.model_name}': {error}") from None
