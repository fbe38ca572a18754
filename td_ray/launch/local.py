"""Jobs as detached processes of this machine, which start a Ray for themselves and end it again."""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

from td_ray.errors import InputError, RunError
from td_ray.launch.detached import ALIVE, CODE, LOG, code_of
from td_ray.launch.jobs import Job, jobs_of
from td_ray.launch.targets import Order, Standing, tail

_DETACHED = [sys.executable, "-P", "-m", "td_ray.launch.detached"]


class Local:
    """This machine, without a scheduler."""

    def at_work(self, name: str) -> str | None:
        """The id of a job of that name that runs."""
        running = (job for job in jobs_of(name) if job.target == "local" and _is_alive(job))
        return next((job.id for job in running), None)

    def script(self, order: Order) -> str:
        """The command."""
        return shlex.join(_command(order)) + "\n"

    def submit(self, order: Order) -> str:
        """Start it; returns the number of the process that waits for it."""
        started = subprocess.run(
            [*_DETACHED, str(order.job.folder), *_command(order)],
            env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            capture_output=True,
            text=True,
        )
        if started.returncode:
            raise RunError(f"no process could be started: {started.stderr.strip()}")
        return started.stdout.strip()

    def places(self, job: Job) -> list[str]:
        """Its log."""
        return [f"log: {job.folder / LOG}"]

    def standing(self, job: Job) -> Standing:
        """Whether its process runs, and how it ended."""
        code = code_of(job.folder)
        if code is None and _is_alive(job):
            note = (
                "" if _is_here(job) else f"on {job.host}, where alone it is seen if it was killed"
            )
            return Standing("running", note=note)
        code = code_of(job.folder)  # it may have ended since
        return Standing("ended", code, "" if code is not None else "its processes were killed")

    def output(self, job: Job) -> Iterator[str]:
        """Its log."""
        return tail(job.folder / LOG, lambda: self.standing(job).state == "ended")

    def cancel(self, job: Job) -> None:
        """SIGTERM."""
        if not _is_here(job):
            raise InputError(
                f"{job.name} (attempt {job.attempt}) runs on {job.host}: cancel it there"
            )
        if _is_alive(job):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(int(job.id), signal.SIGTERM)


def _command(order: Order) -> list[str]:
    return [sys.executable, "-m", "td_ray.cli", "run", str(order.file), *order.options]


def _is_here(job: Job) -> bool:
    return job.host == platform.node()


def _is_alive(job: Job) -> bool:
    """Whether the process that waits for the run holds its lock; on another machine, it may."""
    path = job.folder / ALIVE
    if not path.exists() or (job.folder / CODE).exists():
        return False
    if not _is_here(job):  # homes may be shared, and processes are not
        return True
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
