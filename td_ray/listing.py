"""What there is, in rows: models, tasks, feature arrays, and the sources that are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from td_ray import registry
from td_ray.features import Entry
from td_ray.plan.resolve import load_data
from td_ray.spec import Experiment, TaskSpec
from td_ray.tasks import Task, expand
from td_ray.zoo import resolve_representations

Row = dict[str, Any]


def models(experiment: Experiment | None) -> list[Row]:
    """The models of an experiment with their metadata; the known model sources where None."""
    if experiment is None:
        return [{"model source": name} for name in registry.MODEL_SOURCES.names()]
    return [
        {"model": item.model_name, "layer": item.layer, **item.metadata}
        for item in resolve_representations(experiment)
    ]


def tasks(experiment: Experiment | None, every: bool = False) -> list[Row]:
    """The tasks of an experiment with their sizes; the known data sources where None.

    Targets are computed only where a task leaves samples out.

    Args:
        every: a row for each task; by default, a family has a single one.
    """
    if experiment is None:
        return [{"data source": name} for name in registry.DATA_SOURCES.names()]
    data = load_data(experiment)
    if every:
        found = expand(experiment.tasks, data)
        return [{"task": task.name, **_facts(task.spec, [task])} for task in found]
    return [_line(spec, expand([spec], data)) for spec in experiment.tasks]


def _line(spec: TaskSpec, members: Sequence[Task]) -> Row:
    """The row of a line, which is a task or a family of them."""
    return {"task": spec.name, "tasks": f"{len(members):,}", **_facts(spec, members)}


def _facts(spec: TaskSpec, members: Sequence[Task]) -> Row:
    return {
        "kind": spec.kind,
        "data": spec.data,
        "target": _target(spec),
        "classes": _range(len(task.classes) for task in members) if members[0].classes else "",
        "train": _range(task.n_train for task in members),
        "evaluation": _range(
            sum(int(task.evaluation_rows(name).sum()) for name in task.evaluation)
            for task in members
        ),
    }


def _target(spec: TaskSpec) -> str:
    """The column, what a family makes of it, or what a family draws."""
    if spec.family is None:
        return str(spec.target)
    kind = spec.family.kind
    return f"{kind} of {spec.target}" if spec.family.needs_labels else kind


def _range(numbers: Iterable[int]) -> str:
    """A number, or the least and the largest where they differ."""
    found = set(numbers)
    low, high = min(found), max(found)
    return f"{low}" if low == high else f"{low}-{high}"


def arrays(entries: Iterable[Entry]) -> list[Row]:
    """Feature arrays of a cache, and how fast the network was that made them."""
    return [
        {
            "model": entry.model,
            "layer": entry.layer,
            "data": entry.data,
            "width": entry.width,
            "MiB": f"{entry.bytes / 2**20:.1f}",
            "samples/s": f"{entry.samples_per_second:.0f}",
        }
        for entry in entries
    ]
