"""Jobs of Kubernetes, with a stand-in for kubectl: no cluster can be had where tests run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small_zoo import experiment, write_zoo

from td_ray import launch
from td_ray.errors import InputError
from td_ray.launch.jobs import Job
from td_ray.spec import Experiment

KUBECTL = Path(__file__).with_name("kubectl.py")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the cluster has; with a kubectl that knows it, first on the path."""
    state, programs = tmp_path / "cluster", tmp_path / "bin"
    state.mkdir()
    programs.mkdir()
    (programs / "kubectl").write_text(f'#!/bin/sh\nexec {sys.executable} {KUBECTL} "$@"\n')
    (programs / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("KUBECTL_STATE", str(state))
    monkeypatch.setenv("TD_RAY_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setattr("td_ray.launch.targets.SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr("td_ray.launch.submitting.SECONDS_BETWEEN_LOOKS", 0.05)
    return state


@pytest.fixture
def wanted(tmp_path: Path) -> Experiment:
    """An experiment on the volume that pods share."""
    write_zoo(tmp_path)
    return experiment(tmp_path).model_copy(update={"folder": Path("/shared/zoo")})


def becomes(cluster: Path, job: Job, **status: str) -> None:
    """What KubeRay writes into the job."""
    path = cluster / f"rayjob.{job.id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": status}))


def standing(job: Job) -> Any:
    return launch.find_target("kubernetes").standing(job)


def test_a_job_is_submitted_once_and_followed_to_its_end(cluster: Path, wanted: Experiment) -> None:
    job = launch.submit(wanted, "kubernetes").job
    assert sorted(each.name for each in cluster.iterdir()) == [
        f"configmap.{job.id}.json",
        f"rayjob.{job.id}.json",
    ]
    assert standing(job).state == "waiting"
    again = launch.submit(wanted, "kubernetes")
    assert (again.job, again.is_new) == (job, False)
    becomes(cluster, job, jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert standing(job).state == "running"
    (cluster / f"{job.id}.log").write_text("heads 3/8\nresults in /shared/zoo/output\n")
    becomes(cluster, job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    said = "".join(launch.find_target("kubernetes").output(job))
    assert said == "heads 3/8\nresults in /shared/zoo/output\n"
    assert (standing(job).state, standing(job).code) == ("ended", 0)
    after = launch.submit(wanted, "kubernetes")
    assert (after.is_new, after.job.attempt) == (True, 2)


FAILED = "Job entrypoint command failed with exit code"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"jobStatus": "FAILED", "message": f"{FAILED} 2"}, 2),
        ({"jobStatus": "FAILED", "message": f"{FAILED} 3, last available logs"}, 3),
        ({"jobStatus": "FAILED", "message": f"{FAILED} -9"}, 137),
        ({"jobStatus": "FAILED", "message": "The pod was evicted"}, 1),
        ({"jobStatus": "STOPPED"}, 143),
    ],
)
def test_exit_codes_are_those_of_the_run(
    cluster: Path, wanted: Experiment, status: dict[str, str], code: int
) -> None:
    job = launch.submit(wanted, "kubernetes").job
    becomes(cluster, job, jobDeploymentStatus="Failed", **status)
    assert standing(job).code == code


def test_a_cancelled_job_is_gone_and_a_new_one_may_come(cluster: Path, wanted: Experiment) -> None:
    job = launch.submit(wanted, "kubernetes").job
    launch.cancel(wanted)
    assert list(cluster.iterdir()) == []
    assert (standing(job).state, standing(job).code) == ("ended", 143)
    assert launch.submit(wanted, "kubernetes").is_new


def test_a_refused_job_leaves_nothing(cluster: Path, wanted: Experiment) -> None:
    (cluster / "refused").touch()
    with pytest.raises(InputError, match='no matches for kind "RayJob"') as error:
        launch.submit(wanted, "kubernetes")
    assert "a line of its log" not in str(error.value)
    assert [each.name for each in cluster.iterdir()] == ["refused"]
    assert launch.all_jobs() == []


def test_names_that_another_machine_has_taken_are_left_alone(
    cluster: Path, wanted: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = launch.submit(wanted, "kubernetes").job
    becomes(cluster, first, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    monkeypatch.setenv("TD_RAY_JOBS", str(tmp_path / "jobs-of-another-machine"))
    second = launch.submit(wanted, "kubernetes").job
    assert second.id != first.id
    assert standing(first).code == 0
    assert standing(second).state == "waiting"


def test_a_job_of_another_machine_is_attached_to(
    cluster: Path, wanted: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = launch.submit(wanted, "kubernetes").job
    monkeypatch.setenv("TD_RAY_JOBS", str(tmp_path / "jobs-of-another-machine"))
    found = launch.submit(wanted, "kubernetes")
    assert (found.is_new, found.job.id) == (False, first.id)
