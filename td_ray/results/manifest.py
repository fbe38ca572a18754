"""The manifest: whose output this is, and the numbers of its representations."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from td_ray.errors import InputError
from td_ray.files import atomic, write_json
from td_ray.spec import Experiment

_LIBRARIES = ("td-ray", "torch", "numpy", "ray")


@dataclass(frozen=True)
class Manifest:
    """What an output folder says of itself.

    Attributes:
        experiment: the experiment's name.
        representations: names in order of arrival; a position is a number that never changes.
        tasks: names of the tasks of the last run.
    """

    experiment: str
    representations: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def with_arrivals(self, names: Sequence[str]) -> Manifest:
        """Number the representations that are new."""
        known = set(self.representations)
        arrived = tuple(name for name in names if name not in known)
        return replace(self, representations=self.representations + arrived)


def read_manifest(output: Path, experiment: Experiment) -> Manifest:
    """Read the manifest of an output folder, or start one.

    Raises:
        InputError: the folder holds another experiment, or files that are not td-ray's.
    """
    path = output / "manifest.json"
    if not path.is_file():
        if output.exists() and not output.is_dir():
            raise InputError(f"output: {output} is a file; choose a folder")
        for above in output.parents:
            if above.exists() and not above.is_dir():
                raise InputError(f"output: {above} is a file, so {output} cannot be a folder")
        names = [item.name for item in output.iterdir()] if output.is_dir() else []
        others = [name for name in names if not name.startswith(".")]
        if others:
            raise InputError(
                f"output: {output} is not empty and holds no td-ray results "
                f"(found '{min(others)}'); choose another folder"
            )
        return Manifest(experiment.name)
    try:
        content = json.loads(path.read_text())
        manifest = Manifest(
            str(content["experiment"]),
            tuple(content["representations"]),
            tuple(content["tasks"]),
        )
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"output: {path} is damaged; restore it or choose another folder"
        ) from None
    _refuse_another(manifest, experiment, output)
    return manifest


def _refuse_another(manifest: Manifest, experiment: Experiment, output: Path) -> None:
    tasks = {task.name for task in experiment.tasks}
    if manifest.experiment != experiment.name or not tasks & set(manifest.tasks):
        raise InputError(
            f"output: {output} holds another experiment, '{manifest.experiment}' with tasks "
            f"{', '.join(manifest.tasks)}; choose another 'output' for '{experiment.name}'"
        )


def write_manifest(output: Path, manifest: Manifest, experiment: Experiment) -> None:
    """Write the manifest and the experiment beside it."""
    write_json(
        output / "manifest.json",
        {
            "experiment": manifest.experiment,
            "representations": list(manifest.representations),
            "tasks": [task.name for task in experiment.tasks],
            "machine": {
                "python": platform.python_version(),
                "machine": platform.machine(),
                **{name: version(name) for name in _LIBRARIES},
            },
        },
    )
    with atomic(output / "experiment.yaml") as temporary:
        temporary.write_text(experiment.to_yaml(), encoding="utf-8")
