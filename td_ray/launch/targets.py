"""Where jobs can run, and what every such target can do."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from td_ray.launch.jobs import EXPERIMENT, Job
from td_ray.spec import Experiment, require_target

SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Standing:
    """How a job fares.

    Attributes:
        code: its exit code, once it has ended and that is known.
        note: what the target says of it.
    """

    state: Literal["waiting", "running", "ended"]
    code: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Order:
    """What is to be submitted.

    Attributes:
        job: whose ``id`` is still empty.
        options: of ``td-ray run``, beside the experiment.
        is_shipped: whether the experiment's folder is sent along.
    """

    job: Job
    experiment: Experiment
    options: Sequence[str]
    is_shipped: bool = False

    @property
    def file(self) -> Path:
        """The experiment as it runs."""
        return self.job.folder / EXPERIMENT


class Target(Protocol):
    """Runs jobs."""

    def at_work(self, name: str) -> str | None:
        """The id of a job of that name that waits or runs, whoever submitted it."""

    def script(self, order: Order) -> str:
        """Exactly what is submitted."""

    def submit(self, order: Order) -> str:
        """Submit, and return the id.

        Raises:
            InputError: it is refused.
        """

    def places(self, job: Job) -> list[str]:
        """Where to look at it, a line each."""

    def standing(self, job: Job) -> Standing:
        """How it fares."""

    def output(self, job: Job) -> Iterator[str]:
        """What it prints, until it ends."""

    def cancel(self, job: Job) -> None:
        """Tell it to end; what has finished stays."""


def find_target(name: str) -> Target:
    """The target that ``--on`` names.

    Args:
        name: ``local``, ``slurm``, ``kubernetes``, ``ray`` (the cluster that ``RAY_ADDRESS`` or
            ``RAY_API_SERVER_ADDRESS`` names), or the address of a cluster's jobs API.

    Raises:
        InputError: there is no such target.
    """
    require_target(name)
    if name == "local":
        from td_ray.launch.local import Local

        return Local()
    if name == "slurm":
        from td_ray.launch.slurm import Slurm

        return Slurm()
    if name == "kubernetes":
        from td_ray.launch.kubernetes import Kubernetes

        return Kubernetes()
    from td_ray.launch.ray_jobs import RayJobs

    return RayJobs(None if name == "ray" else name)


def tail(path: Path, has_ended: Callable[[], bool]) -> Iterator[str]:
    """What is written to a file, as it is, until a job has ended; it may not be there yet."""
    place, is_last = 0, False
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a look may end inside a character
    while True:
        if path.exists():
            if path.stat().st_size < place:  # it was written anew
                place = 0
            with path.open("rb") as file:
                file.seek(place)
                if text := decoder.decode(file.read(), final=is_last):
                    yield text
                place = file.tell()
        if is_last:
            return
        is_last = has_ended()
        if not is_last:
            time.sleep(SECONDS_BETWEEN_LOOKS)
