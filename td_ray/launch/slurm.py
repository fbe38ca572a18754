"""Jobs of Slurm: one batch script, which starts Ray on the nodes that it is given."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from td_ray.errors import InputError
from td_ray.launch.detached import LOG, code_of
from td_ray.launch.files import cluster_file
from td_ray.launch.jobs import Job
from td_ray.launch.programs import answer
from td_ray.launch.targets import Order, Standing, tail
from td_ray.spec import Cluster

WHERE = "--on slurm is for machines that can submit jobs, such as a login node"
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
CANCELLED = 143
"""The code of a job that was cancelled before it could leave one."""


class Slurm:
    """The cluster that ``sbatch`` of this machine submits to."""

    def at_work(self, name: str) -> str | None:
        """The id of this user's job of that name that waits or runs."""
        found = answer(
            ["squeue", "--me", f"--name={name}", "--noheader", "--format=%i"], WHERE
        ).split()
        return found[0] if found else None

    def script(self, order: Order) -> str:
        """The batch script of ``clusters/slurm``, with this job's options at its top."""
        cluster, job = order.experiment.cluster, order.job
        if cluster.cpus is None and "exclusive" not in cluster.options:
            raise InputError(
                "cluster.cpus is not set, and Slurm's own default is mostly one CPU of each node: "
                "say how many (--cpus 16), or ask for whole nodes (--set 'cluster.options="
                "[exclusive]')"
            )
        lines = ["#!/usr/bin/env bash"]
        lines += [f"#SBATCH --{option}" for option in _options(cluster, job)]
        knobs = {"TD_RAY": _program(), "JOB_FOLDER": str(job.folder)}
        lines += [f"export {name}={shlex.quote(value)}" for name, value in knobs.items()]
        lines.append(f"set -- {shlex.join([str(order.file), *order.options])}")
        body = cluster_file("slurm/job.sh").read_text(encoding="utf-8").splitlines()[1:]
        lines += [line for line in body if not line.startswith("#SBATCH")]
        return "\n".join(lines) + "\n"

    def submit(self, order: Order) -> str:
        """Hand the script to ``sbatch``."""
        path = order.job.folder / "job.sh"
        path.write_text(self.script(order), encoding="utf-8")
        try:
            said = answer(["sbatch", "--parsable", str(path)], WHERE)
        except InputError as error:
            raise InputError(f"{error}{_offers()}") from None
        return said.strip().partition(";")[0]  # job;cluster

    def places(self, job: Job) -> list[str]:
        """Its log, and what tells when it begins."""
        return [f"log: {job.folder / LOG}", f"queue: squeue --start --jobs={job.id}"]

    def standing(self, job: Job) -> Standing:
        """What the queue says, and once it is not there, what it has left."""
        found = _in_queue(job.id).split(maxsplit=1)
        if found:
            state, reason = found[0], found[1].strip() if len(found) > 1 else "None"
            note = state if reason == "None" else f"{state}, {reason}"
            return Standing("waiting" if state in WAITING else "running", note=note)
        known = _remembered(job.id)
        state, code = known.get("JobState", ""), code_of(job.folder)
        if code is None and state.startswith("CANCELLED"):
            code = CANCELLED
        if code is None and "ExitCode" in known:  # what the nodes have written is not seen here yet
            status, _, number = known["ExitCode"].partition(":")
            code = 128 + int(number) if int(number) else int(status)
        return Standing("ended", code, state)

    def output(self, job: Job) -> Iterator[str]:
        """Its log, over all of its starts."""

        def has_ended() -> bool:
            with suppress(InputError):  # a controller that does not answer may be back soon
                return self.standing(job).state == "ended"
            return False

        return tail(job.folder / LOG, has_ended)

    def cancel(self, job: Job) -> None:
        """SIGTERM, and half a minute later whatever is left."""
        answer(["scancel", job.id], WHERE)


def _options(cluster: Cluster, job: Job) -> list[str]:
    """What stands behind ``#SBATCH --``."""
    wanted: dict[str, object] = {
        "job-name": job.name,
        "output": job.folder / LOG,
        "open-mode": "append",
        "nodes": cluster.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus,
        "mem": None if cluster.memory is None else f"{cluster.memory // 2**20}M",
        "time": None if cluster.time is None else _time(cluster.time),
        "partition": cluster.partition,
        "account": cluster.account,
        "signal": "B:USR1@120",
    }
    if cluster.gpus:
        kind = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
        wanted["gres"] = f"gpu:{kind}{cluster.gpus}"
    options = [
        f"{name}={shlex.quote(str(value))}" for name, value in wanted.items() if value is not None
    ]
    return [*options, "requeue", *cluster.options]


def _time(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


def _program() -> str:
    """``td-ray`` of this environment, which nodes must see too."""
    path = Path(sys.executable).with_name("td-ray")
    if not path.exists():
        raise InputError(f"there is no {path}, which the job would run; install td-ray there")
    return str(path)


def _in_queue(identifier: str) -> str:
    """A job's state and the reason for it; empty where it is not in the queue."""
    try:
        return answer(["squeue", f"--jobs={identifier}", "--noheader", "--format=%T %r"], WHERE)
    except InputError as error:
        if "Invalid job id" in str(error):  # Slurm has forgotten it
            return ""
        raise


def _remembered(identifier: str) -> dict[str, str]:
    """What Slurm remembers of a job that has left the queue, for some minutes."""
    with suppress(InputError):
        words = answer(["scontrol", "show", "job", identifier, "--oneliner"], WHERE).split()
        return {word.partition("=")[0]: word.partition("=")[2] for word in words}
    return {}


def _offers() -> str:
    """What there is to ask for; empty where even that cannot be had."""
    with suppress(InputError):
        lines = answer(["sinfo", "--noheader", "--format=%R (%G)"], WHERE).split("\n")
        there = ", ".join(sorted({line.strip() for line in lines if line.strip()}))
        return f"; there are the partitions (and their GPUs) {there}"
    return ""
