"""What there is, in rows: models, tasks, feature arrays, and the sources that are known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from td_ray import registry
from td_ray.features import Entry
from td_ray.resolve import resolve
from td_ray.spec import Experiment
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


def tasks(experiment: Experiment | None) -> list[Row]:
    """The tasks of an experiment with their sizes; the known data sources where None."""
    if experiment is None:
        return [{"data source": name} for name in registry.DATA_SOURCES.names()]
    return [
        {
            "task": task.name,
            "kind": task.spec.kind,
            "data": task.spec.data,
            "target": task.spec.target,
            "classes": len(task.classes) or "",
            "train": len(task.train_target),
            "evaluation": sum(len(each) for each in task.evaluation_targets.values()),
        }
        for task in resolve(experiment).tasks
    ]


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
