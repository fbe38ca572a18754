"""Jobs that were submitted, as folders: a record, the experiment, and what a target adds.

Each attempt has a folder of its own, ``NAME/ATTEMPT``:

    job.json          who submitted what, where and when
    experiment.yaml   exactly what runs; its paths are absolute
    cancelled         it was told to end
    log, code         output and exit code, where the target writes them here
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from td_ray.errors import InputError
from td_ray.files import fingerprint, write_json
from td_ray.spec import Experiment
from td_ray.storage import beside

RECORD = "job.json"
EXPERIMENT = "experiment.yaml"
CANCELLED = "cancelled"
LONGEST_WORD = 24
"""Of an experiment's name in a job's, which Kubernetes allows 63 characters in all."""


@dataclass(frozen=True)
class Job:
    """One attempt to run an experiment at a target.

    Attributes:
        name: shared by all attempts with the same output.
        target: as ``--on`` names it.
        id: what the target calls it.
        output: where its results go.
        content: fingerprint of the experiment, where it runs apart.
        submitted: when, as people read it.
        by: who, on which machine.
    """

    name: str
    attempt: int
    target: str
    id: str
    output: str
    content: str
    submitted: str
    by: str

    @property
    def folder(self) -> Path:
        """Where its record is."""
        return jobs_folder() / self.name / str(self.attempt)

    @property
    def host(self) -> str:
        """The machine that it was submitted from."""
        return self.by.rpartition(" on ")[2]

    @property
    def is_cancelled(self) -> bool:
        """Whether it was told to end."""
        return (self.folder / CANCELLED).exists()

    def note_cancelled(self) -> None:
        """Keep that it was told to end."""
        (self.folder / CANCELLED).touch()

    def write(self) -> None:
        """Keep the record."""
        write_json(self.folder / RECORD, asdict(self))


def jobs_folder() -> Path:
    """The folder of all jobs of this user: ``TD_RAY_JOBS``, or one in the user's state.

    Nodes of a Slurm cluster must see it, as they see homes.

    Raises:
        InputError: ``TD_RAY_JOBS`` is relative.
    """
    named = os.environ.get("TD_RAY_JOBS")
    if named and not os.path.isabs(named):
        raise InputError(f"TD_RAY_JOBS is '{named}', which is not an absolute path: make it one")
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "td-ray/jobs"


def job_name(experiment: Experiment) -> str:
    """The name of all jobs with this experiment's output."""
    word = re.sub(r"[^a-z0-9]+", "-", experiment.name.lower()).strip("-")[:LONGEST_WORD].strip("-")
    place = beside(experiment.folder, experiment.output)
    return f"td-ray-{word or 'experiment'}-{fingerprint(place)[:8]}"


def content_of(experiment: Experiment) -> str:
    """What a job runs: the experiment without what it asks of a cluster."""
    content: dict[str, Any] = experiment.model_dump(mode="json", exclude={"cluster"})
    return fingerprint(content)


def new_job(experiment: Experiment, target: str, identifier: str = "") -> Job:
    """The next attempt at an experiment; makes its folder."""
    name = job_name(experiment)
    attempt = max((job.attempt for job in jobs_of(name)), default=0) + 1
    while True:  # another process may submit the same now
        try:
            (jobs_folder() / name / str(attempt)).mkdir(parents=True)
            break
        except FileExistsError:
            attempt += 1
    return Job(
        name=name,
        attempt=attempt,
        target=target,
        id=identifier,
        output=beside(experiment.folder, experiment.output),
        content=content_of(experiment),
        submitted=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        by=f"{getpass.getuser()} on {platform.node()}",
    )


def jobs_of(name: str) -> list[Job]:
    """The attempts of a name that were submitted, in their order; one without a record is none."""
    return sorted(_read(jobs_folder() / name), key=lambda job: job.attempt)


def last_job(experiment: Experiment) -> Job | None:
    """The last attempt at an experiment; None where there was none."""
    return next(reversed(jobs_of(job_name(experiment))), None)


def all_jobs() -> list[Job]:
    """All jobs of this user, the latest first."""
    folders = sorted(jobs_folder().glob("*/"))
    found = [job for folder in folders for job in _read(folder)]
    return sorted(found, key=lambda job: job.submitted, reverse=True)


def _read(folder: Path) -> Iterator[Job]:
    for path in folder.glob(f"*/{RECORD}"):
        try:
            yield Job(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is no record of a job ({error}); remove it") from None
