"""An experiment with its files looked at: data sets, tasks, representations, and their checks.

Everything that can be seen without a heavy library is found here, before anything is spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from td_ray.errors import InputError
from td_ray.registry import MEASURES, closest
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
    """

    experiment: Experiment
    data: Mapping[str, DataSet]
    tasks: tuple[Task, ...]
    representations: tuple[Representation, ...]

    @cached_property
    def wanted(self) -> WantedPairs:
        """Which pairs the experiment asks for."""
        return WantedPairs(self.experiment.pairs)

    def has_task(self, representation: Representation, task: Task) -> bool:
        """Whether a representation takes part in a task."""
        return representation.model.takes(task.spec.name)


@dataclass(frozen=True)
class WantedPairs:
    """The ``pairs`` of an experiment: all, or those that two globs over names select."""

    globs: str | tuple[tuple[str, str], ...]

    def __call__(self, a: Representation, b: Representation) -> bool:
        """Whether the pair is wanted, in either order."""
        if isinstance(self.globs, str):
            return True
        return any(
            (_matches(a, one) and _matches(b, other)) or (_matches(b, one) and _matches(a, other))
            for one, other in self.globs
        )

    def needs(self, representation: Representation) -> bool:
        """Whether some glob selects a representation."""
        if isinstance(self.globs, str):
            return True
        return any(_matches(representation, glob) for pair in self.globs for glob in pair)


def _matches(representation: Representation, glob: str) -> bool:
    names = (representation.model_name, representation.name)
    return any(name == glob or fnmatchcase(name, glob) for name in names)


def resolve(experiment: Experiment) -> Problem:
    """Look at the files an experiment names.

    Raises:
        InputError: the first thing that is wrong.
    """
    _check_measures(experiment)
    data = load_data(experiment)
    tasks = tuple(resolve_tasks(experiment.tasks, data))
    for task in tasks:
        _check_halves(task, experiment.seeds)
    everything = resolve_representations(experiment)
    wanted = WantedPairs(experiment.pairs)
    _check_globs(wanted, everything)
    representations = tuple(item for item in everything if wanted.needs(item))
    _check_representations(experiment, tasks, representations, data)
    return Problem(experiment, data, tasks, representations)


def _check_measures(experiment: Experiment) -> None:
    """Refuse a measure of predictions that compares none of the tasks' kinds."""
    for name in experiment.measures:
        kinds = getattr(MEASURES.get(name), "kinds", None)  # a measure of features has none
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


def _check_globs(wanted: WantedPairs, representations: list[Representation]) -> None:
    if isinstance(wanted.globs, str):
        return
    for glob in {glob for pair in wanted.globs for glob in pair}:
        if not any(_matches(item, glob) for item in representations):
            names = {item.model_name for item in representations}
            raise InputError(f"pairs: '{glob}' selects no model: {closest(glob, names)}")


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
