"""The experiment's folder, sent along to a cluster that does not see it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from td_ray import yaml_files
from td_ray.errors import InputError
from td_ray.launch.jobs import EXPERIMENT
from td_ray.spec import Experiment
from td_ray.storage import is_url

MOST_BYTES = 100 * 2**20
"""Ray takes no larger folder."""

LEFT_OUT = ("__pycache__",)
SHOWN = 3


def ship(experiment: Experiment, folder: Path) -> None:
    """Copy all that lies beside an experiment, but hidden files, its output and its cache.

    Args:
        folder: is made for the copies, with the experiment among them.

    Raises:
        InputError: they are too large, or the output would stay on a machine that goes.
    """
    if not (is_url(experiment.output) or Path(experiment.output).is_absolute()):
        raise InputError(
            f"output is {experiment.output}, which would lie in the folder that is sent, and go "
            "with the cluster: name a folder in an object store, such as --set "
            "output=s3://bucket/folder, or an absolute path that all nodes see"
        )
    files = list(_files(experiment))
    _require_small(experiment.folder, files)
    for path in files:
        copy = folder / path.relative_to(experiment.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    content = {**experiment.model_dump(mode="json"), "folder": "."}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXPERIMENT).write_text(yaml_files.write(content), encoding="utf-8")


def _files(experiment: Experiment) -> Iterator[Path]:
    own = {experiment.output_folder.local, experiment.cache_path}
    for here, folders, names in os.walk(experiment.folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in LEFT_OUT and Path(here, name) not in own
        ]
        yield from (Path(here, name) for name in names if not name.startswith("."))


def _require_small(root: Path, files: Sequence[Path]) -> None:
    sizes = {path: path.stat().st_size for path in files}
    total = sum(sizes.values())
    if total <= MOST_BYTES:
        return
    largest = sorted(files, key=lambda path: -sizes[path])[:SHOWN]
    named = ", ".join(
        f"{path.relative_to(root)} ({sizes[path] / 2**20:,.0f} MiB)" for path in largest
    )
    raise InputError(
        f"{root} holds {total / 2**20:,.0f} MiB, and at most {MOST_BYTES // 2**20} can be sent "
        f"with a job; the largest are {named}: put them where the cluster sees them, and submit "
        "without --ship, with --set folder=..."
    )
