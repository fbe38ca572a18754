"""The manifest: whose output this is, and the numbers of its representations."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from td_ray.errors import InputError
from td_ray.files import one_line
from td_ray.spec import Experiment
from td_ray.spec.experiment import EXPERIMENT
from td_ray.storage import Folder

MANIFEST = "manifest.json"
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


def read_manifest(output: Folder, experiment: Experiment) -> Manifest:
    """Read the manifest of an output folder, or start one.

    Raises:
        InputError: the folder cannot be read, holds another experiment, or files that are not
            td-ray's.
    """
    try:
        content = json.loads(output.read(MANIFEST))
        manifest = Manifest(
            str(content["experiment"]),
            tuple(content["representations"]),
            tuple(content["tasks"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        _require_empty(output)
        return Manifest(experiment.name)
    except OSError as error:
        raise InputError(f"output: {output} cannot be read: {one_line(error)}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"output: {output.shown(MANIFEST)} is damaged; restore it or choose another folder"
        ) from None
    _refuse_another(manifest, experiment, output)
    return manifest


def _require_empty(output: Folder) -> None:
    """Refuse a place that is no folder, or one with files of somebody else."""
    if output.local is not None:
        if output.local.exists() and not output.local.is_dir():
            raise InputError(f"output: {output} is a file; choose a folder")
        for above in output.local.parents:
            if above.exists() and not above.is_dir():
                raise InputError(f"output: {above} is a file, so {output} cannot be a folder")
    if not output.has_bucket():
        raise InputError(f"output: {output}: there is no such bucket; create it, or name another")
    others = [name for name in output.names() if not name.startswith(".")]
    if others:
        raise InputError(
            f"output: {output} is not empty and holds no td-ray results "
            f"(found '{min(others)}'); choose another folder"
        )


def _refuse_another(manifest: Manifest, experiment: Experiment, output: Folder) -> None:
    tasks = {task.name for task in experiment.tasks}
    if manifest.experiment != experiment.name or not tasks & set(manifest.tasks):
        raise InputError(
            f"output: {output} holds another experiment, '{manifest.experiment}' with tasks "
            f"{', '.join(manifest.tasks)}; choose another 'output' for '{experiment.name}'"
        )


def write_manifest(output: Folder, manifest: Manifest, experiment: Experiment) -> None:
    """Write the manifest and the experiment beside it."""
    content = {
        "experiment": manifest.experiment,
        "representations": list(manifest.representations),
        "tasks": [task.name for task in experiment.tasks],
        "machine": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{name: version(name) for name in _LIBRARIES},
        },
    }
    output.write(MANIFEST, (json.dumps(content, sort_keys=True, indent=1) + "\n").encode())
    output.write(EXPERIMENT, experiment.to_yaml().encode())
