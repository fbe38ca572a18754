"""Submit an experiment once: a job of it that is at work is not submitted again."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from td_ray.errors import InputError
from td_ray.launch.jobs import Job, content_of, job_name, jobs_folder, last_job, new_job
from td_ray.launch.targets import SECONDS_BETWEEN_LOOKS, Order, Target, find_target
from td_ray.spec import Experiment

SECONDS_TO_END = 120.0
"""Of a job that was told to: schedulers give it half a minute, and then take it away."""


@dataclass(frozen=True)
class Submission:
    """What came of it.

    Attributes:
        is_new: False where the job was at work already.
    """

    job: Job
    is_new: bool


def submit(
    experiment: Experiment, on: str, options: Sequence[str] = (), *, ship: bool = False
) -> Submission:
    """Submit an experiment, unless a job of it is at work.

    Args:
        on: the target; see ``find_target``.
        options: of ``td-ray run``.
        ship: send the experiment's folder along.

    Raises:
        InputError: the target is not there or refuses; or a job with the same output is at work on
            another experiment, or at another target.
    """
    target, name = find_target(on), job_name(experiment)
    _require_shippable(on, ship)
    with _locked(name):
        last = last_job(experiment)
        if last is not None and last.target != on:
            _require_ended(last)
        found = target.at_work(name)
        if found is not None and last is not None and last.id == found and last.is_cancelled:
            _wait_for_end(last, target)
            found = None
        if found is not None:
            if last is None or last.id != found:  # submitted from elsewhere
                last = new_job(experiment, on, found)
                last.write()
            if last.content != content_of(experiment):
                raise InputError(
                    f"{last.name} (attempt {last.attempt}, {last.id} on {on}) is at work on the "
                    f"same output, {last.output}, with another content of the experiment: wait for "
                    "it, or 'td-ray cancel' it first; what it has finished is kept"
                )
            return Submission(last, is_new=False)
        job = new_job(experiment, on)
        try:
            order = Order(job, experiment, options, ship)
            order.file.write_text(experiment.to_yaml(), encoding="utf-8")
            job = replace(job, id=target.submit(order))
        except BaseException:
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        job.write()
    return Submission(job, is_new=True)


def cancel(experiment: Experiment) -> Job:
    """Tell the last job of an experiment to end; what has finished is kept.

    Raises:
        InputError: none was submitted from here, or it has ended.
    """
    job = last_job(experiment)
    if job is None:
        raise InputError(
            f"no job of {job_name(experiment)} was submitted from here; a job's name comes from "
            "its output, so say the same --set as at its submission"
        )
    target = find_target(job.target)
    standing = target.standing(job)
    if standing.state == "ended":
        code = "" if standing.code is None else f" with exit code {standing.code}"
        raise InputError(f"{job.name} (attempt {job.attempt}) has ended already{code}")
    target.cancel(job)
    job.note_cancelled()
    return job


def dry_run(experiment: Experiment, on: str, options: Sequence[str] = ()) -> str:
    """Exactly what ``submit`` would submit; nothing is, and nothing stays behind."""
    target = find_target(on)
    with _locked(job_name(experiment)):
        job = new_job(experiment, on)
        try:
            return target.script(Order(job, experiment, options))
        finally:
            shutil.rmtree(job.folder)


def _require_shippable(on: str, ship: bool) -> None:
    if ship and on in ("local", "slurm", "kubernetes"):
        raise InputError(
            f"--ship: only the jobs API of a Ray cluster takes files along; for {on} the "
            "experiment's folder must be where the nodes see it"
        )


def _wait_for_end(job: Job, target: Target) -> None:
    """Wait for a job that was told to end.

    Raises:
        InputError: it takes too long.
    """
    deadline = time.monotonic() + SECONDS_TO_END
    while target.standing(job).state != "ended":
        if time.monotonic() > deadline:
            raise InputError(
                f"{job.name} (attempt {job.attempt}, {job.id} on {job.target}) was told to end, "
                f"and has not for {SECONDS_TO_END:g} s: submit again once it has"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _require_ended(last: Job) -> None:
    try:
        standing = find_target(last.target).standing(last)
    except InputError as error:
        raise InputError(
            f"{last.name} (attempt {last.attempt}) was submitted to {last.target}, which does not "
            f"say whether it has ended: {error}. If it has, remove {last.folder}"
        ) from None
    if standing.state != "ended":
        raise InputError(
            f"{last.name} (attempt {last.attempt}) is {standing.state} on {last.target} as "
            f"{last.id}, and writes to the same output, {last.output}: wait for it, or 'td-ray "
            "cancel' it first"
        )


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One submission of a name at a time, among all processes that see the folder of jobs."""
    folder = jobs_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
