"""Jobs of a Ray cluster that is up, through its jobs API."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from td_ray.errors import InputError
from td_ray.files import one_line
from td_ray.launch.jobs import EXPERIMENT, Job
from td_ray.launch.shipping import ship
from td_ray.launch.targets import SECONDS_BETWEEN_LOOKS, Order, Standing

PROGRAM = "python -m td_ray.cli"
"""``td-ray`` as the cluster's own environment has it."""

NO_AGENT = "No available agent"
SECONDS_FOR_AGENT = 60.0
SECONDS_TO_COME_BACK = 120.0
"""Of a cluster that does not answer, while its log is followed."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOPPED = 143
"""The code of a job that was stopped before it could leave one."""


class RayJobs:
    """A cluster by the address of its jobs API; None for the one that the environment names."""

    def __init__(self, address: str | None) -> None:
        named = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
        if address is None and not named:
            raise InputError(
                "--on ray: RAY_API_SERVER_ADDRESS and RAY_ADDRESS name no cluster; set one, or "
                "name the jobs API itself, such as --on http://127.0.0.1:8265"
            )
        self._shown = address or str(named)
        self._connected: Any = None

    def at_work(self, name: str) -> str | None:
        """The id of a job of that name that waits or runs."""
        with self._asked() as client:
            jobs = client.list_jobs()
        return next(
            (job.submission_id for job in jobs if _is_of(job, name) and job.status not in ENDED),
            None,
        )

    def script(self, order: Order) -> str:
        """The command that the cluster runs, in a folder that has the experiment in it."""
        return f"{PROGRAM} run {shlex.join([EXPERIMENT, *order.options])}\n"

    def submit(self, order: Order) -> str:
        """Send the experiment, and have it run."""
        job, folder = order.job, order.job.folder
        if order.is_shipped:
            folder = job.folder / "shipped"
            ship(order.experiment, folder)
        with self._asked() as client:
            taken = {each.submission_id for each in client.list_jobs()}
            attempt = job.attempt
            while f"{job.name}-{attempt}" in taken:  # it was submitted from elsewhere, too
                attempt += 1
            return _submitted(
                client,
                entrypoint=self.script(order).strip(),
                submission_id=f"{job.name}-{attempt}",
                runtime_env={"working_dir": str(folder)},
                metadata={"td-ray": job.name, "output": job.output},
            )

    def places(self, job: Job) -> list[str]:
        """Where the dashboard shows it."""
        with self._asked() as client:
            return [f"dashboard: {client.get_address()}/#/jobs/{job.id}"]

    def standing(self, job: Job) -> Standing:
        """What the cluster says; one that has forgotten the job was started anew since."""
        with self._asked() as client:
            known = {each.submission_id: each for each in client.list_jobs()}
        if job.id not in known:
            return Standing("ended", None, "the cluster does not know it")
        details = known[job.id]
        status = str(details.status.value)
        if status not in ENDED:
            return Standing("waiting" if status == "PENDING" else "running", None, status)
        code = details.driver_exit_code
        if code is None:
            code = {"SUCCEEDED": 0, "STOPPED": STOPPED}.get(status, 1)
        elif code < 0:
            code = 128 - code
        return Standing("ended", code, status)

    def output(self, job: Job) -> Iterator[str]:
        """Its log, as the cluster passes it on; gone on with where the connection breaks."""
        seen, silent = 0, None
        while True:
            try:
                passed = 0
                for chunk in self._tail(job):
                    passed += len(chunk)
                    if passed > seen:
                        yield chunk[seen - passed :]
                        seen = passed
                if self.standing(job).state == "ended":
                    return
                silent = None
            except InputError:
                silent = silent or time.monotonic()
                if time.monotonic() - silent > SECONDS_TO_COME_BACK:
                    raise
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _tail(self, job: Job) -> Iterator[str]:
        """Its log from the first line, until it ends or the connection does."""
        with self._asked() as client, asyncio.Runner() as runner:
            chunks = client.tail_job_logs(job.id)
            while (chunk := runner.run(anext(chunks, None))) is not None:
                yield chunk

    def cancel(self, job: Job) -> None:
        """SIGTERM, and soon after whatever is left."""
        with self._asked() as client:
            client.stop_job(job.id)

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """A client that the cluster answers.

        Raises:
            InputError: it does not, or not to this token.
        """
        before = logging.root.manager.disable
        logging.disable(logging.INFO)  # Ray tells of each package that it sends
        try:
            if self._connected is None:
                self._connected = self._connect()
            yield self._connected
        except Exception as error:  # Ray's client raises what it likes
            raise InputError(
                f"the jobs API of the Ray cluster at {self._shown} refuses or does not answer: "
                f"{one_line(error, longest=120)}; is it up, and is the token that "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH names the cluster's?"
            ) from None
        finally:
            logging.disable(before)

    def _connect(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        # Ray's client looks there first, whatever it is told.
        name = "RAY_API_SERVER_ADDRESS"
        before = os.environ.get(name)
        os.environ[name] = self._shown
        try:
            return JobSubmissionClient()
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def _submitted(client: Any, **wanted: Any) -> str:
    """Submit; a cluster that has just come up is asked again until its agent is there, too."""
    deadline = time.monotonic() + SECONDS_FOR_AGENT
    while True:
        try:
            return str(client.submit_job(**wanted))
        except RuntimeError as error:
            if NO_AGENT not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def _is_of(job: Any, name: str) -> bool:
    return bool((job.metadata or {}).get("td-ray") == name)
