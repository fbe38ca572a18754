"""Jobs as detached processes: one of an experiment at a time, its true exit code, cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import head_parts, is_alive, mentioning
from small_zoo import content, experiment, write_zoo

from td_ray import yaml_files
from td_ray.errors import InputError
from td_ray.launch import all_jobs, find_target, job_name, last_job, ray_jobs, submit
from td_ray.launch.jobs import content_of, new_job
from td_ray.launch.targets import Standing
from td_ray.results.tables import open_results
from td_ray.spec import Experiment


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TD_RAY_JOBS", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path, models=8)
    heads = [{"kind": "logistic", "l2": 1e-4}, {"kind": "mlp", "hidden": 64, "epochs": 1500}]
    values = content(resources={"cache": "cache"}, heads=heads)
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(values))
    return tmp_path


def td_ray(zoo: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "td_ray.cli", *arguments]
    ended = subprocess.run(command, cwd=zoo, capture_output=True, text=True, timeout=300)
    assert ended.returncode == code, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended


def listed(zoo: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(td_ray(zoo, "jobs", "--json").stdout)
    return found


@pytest.mark.ray
def test_a_job_is_submitted_once_cancelled_and_goes_on(jobs: Path, zoo: Path) -> None:
    first = td_ray(zoo, "submit", "experiment.yaml", "--on", "local")
    (job,) = listed(zoo)
    assert f"submitted: {job['name']}, attempt 1, as {job['id']} on local" in first.stderr
    again = td_ray(zoo, "submit", "experiment.yaml", "--on", "local")
    assert f"at work already: {job['name']}, attempt 1, as {job['id']}" in again.stderr
    log = jobs / job["name"] / "1/log"
    deadline = time.monotonic() + 120
    while not head_parts(zoo):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    td_ray(zoo, "cancel", "experiment.yaml")
    before = head_parts(zoo)
    last = td_ray(zoo, "submit", "experiment.yaml", "--on", "local", "--follow")
    assert [each["code"] for each in listed(zoo)] == [0, 143]
    assert "ended by SIGTERM" in log.read_text()
    assert not is_alive(int(job["id"]))
    assert not mentioning(str(zoo))
    assert "attempt 2" in last.stderr
    assert "results in" in last.stdout
    after = head_parts(zoo)
    assert {path: after[path] for path in before} == before
    assert len(open_results(zoo / "output").pairs()) == 3 * 8 * 7 / 2
    ended = td_ray(zoo, "cancel", "experiment.yaml", code=2)
    assert "has ended already with exit code 0" in ended.stderr


def test_its_exit_code_is_that_of_the_run(jobs: Path, zoo: Path) -> None:
    (zoo / "points.csv").unlink()
    ended = td_ray(zoo, "submit", "experiment.yaml", "--on", "local", "--follow", code=2)
    assert "points.csv" in ended.stdout
    (job,) = listed(zoo)
    assert (job["state"], job["code"]) == ("ended", 2)


def test_a_job_whose_processes_were_killed_has_ended(jobs: Path, zoo: Path) -> None:
    heads = [{"kind": "mlp", "hidden": 64, "epochs": 10**6}]
    job = submit(experiment(zoo, heads=heads), "local").job
    (run,) = [pid for pid in mentioning(str(job.folder)) if pid != int(job.id)]
    os.kill(int(job.id), signal.SIGKILL)
    os.kill(run, signal.SIGKILL)
    (row,) = listed(zoo)
    assert (row["state"], row["code"]) == ("ended", None)
    assert row["note"] == "its processes were killed"


def test_names_are_those_of_outputs(jobs: Path, zoo: Path) -> None:
    one = experiment(zoo)
    assert job_name(one).startswith("td-ray-small-")
    assert job_name(experiment(zoo, seeds=7)) == job_name(one)
    assert job_name(experiment(zoo, output="other")) != job_name(one)
    odd = experiment(zoo, name="../[x] \u00e4$(y) " * 9)
    assert set(job_name(odd)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(job_name(odd)) <= 40
    assert content_of(experiment(zoo, cluster={"nodes": 9})) == content_of(one)
    assert content_of(experiment(zoo, seeds=7)) != content_of(one)
    assert last_job(one) is None
    assert all_jobs() == []


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("slrum", "--on slrum: no such target; did you mean 'slurm'?"),
        ("", "--on : no such target"),
        ("ray", "RAY_API_SERVER_ADDRESS and RAY_ADDRESS name no cluster"),
        ("http://127.0.0.1:9", "the jobs API of the Ray cluster at http://127.0.0.1:9 refuses"),
    ],
)
def test_a_target_that_is_not_there(
    jobs: Path, zoo: Path, on: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refused = td_ray(zoo, "submit", "experiment.yaml", "--on", on, code=2)
    (line,) = refused.stderr.splitlines()
    assert said in line
    assert listed(zoo) == []


def test_what_a_program_says(jobs: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = zoo / "kubectl"
    log = 'E1129 06:31:46.187144 32367 memcache.go:265] "Unhandled Error"'
    program.write_text(f"#!/bin/sh\necho '{log}' >&2\necho 'It is not there.' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{zoo}:{os.environ['PATH']}")
    refused = td_ray(zoo, "submit", "experiment.yaml", "--on", "kubernetes", code=2)
    assert refused.stderr == "td-ray: kubectl: It is not there.\n"


@pytest.mark.parametrize(("on", "program"), [("slurm", "squeue"), ("kubernetes", "kubectl")])
def test_a_program_that_is_not_there(
    jobs: Path, zoo: Path, on: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(zoo))
    refused = td_ray(zoo, "submit", "experiment.yaml", "--on", on, code=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"td-ray: there is no '{program}' on this machine: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--nodes", "0"), "cluster.nodes"),
        (("--time", "soon"), "'soon' is no time; write hours:minutes:seconds"),
        (("--memory", "much"), "cluster.memory"),
        (("--partition", "a\nb"), "has an end of line"),
        (("--set", "cluster.gpu=1"), "did you mean 'gpus'?"),
    ],
)
def test_what_cannot_be_asked_for(
    jobs: Path, zoo: Path, options: tuple[str, ...], said: str
) -> None:
    refused = td_ray(zoo, "submit", "experiment.yaml", "--on", "local", *options, code=2)
    (line,) = refused.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("12:00:00", 43200),
        ("2-00:00:00", 172800),
        ("0:30", 1800),
        ("4:00", 14400),
        (90, 90),
        ("3600", 3600),
    ],
)
def test_times(tmp_path: Path, time: object, seconds: int) -> None:
    write_zoo(tmp_path)
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml_files.write(content()) + f"cluster:\n  time: {time}\n")
    assert Experiment.load(path).cluster.time == seconds
    assert Experiment.load(path, [f"cluster.time={time}"]).cluster.time == seconds


def test_records(jobs: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = jobs / "td-ray-x-0/1"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    with pytest.raises(InputError, match=r"job\.json is no record of a job .*; remove it"):
        all_jobs()
    monkeypatch.setenv("TD_RAY_JOBS", "here")
    with pytest.raises(InputError, match="not an absolute path"):
        all_jobs()


def test_a_cluster_that_is_gone_does_not_keep_its_jobs(jobs: Path, zoo: Path) -> None:
    wanted = experiment(zoo)
    gone = new_job(wanted, "http://127.0.0.1:9", "job")
    gone.write()
    with pytest.raises(InputError, match=r"does not say whether .* If it has, remove ") as refused:
        submit(wanted, "local")
    assert str(refused.value).endswith(str(gone.folder))


def test_a_dry_run_leaves_nothing(jobs: Path, zoo: Path) -> None:
    shown = td_ray(zoo, "submit", "experiment.yaml", "--on", "local", "--dry-run", "--retry-failed")
    assert shown.stdout.endswith("experiment.yaml --retry-failed\n")
    assert listed(zoo) == []
    assert not (zoo / "output").exists()


def test_a_log_is_gone_on_with_where_its_connection_broke(
    jobs: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster sends it from the first line again; nobody sees a line twice."""

    class Client:
        """Breaks off twice: once in silence, once with an error."""

        def __init__(self) -> None:
            self.times = 0

        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            self.times += 1
            yield "first\nsec"
            if self.times == 1:
                return
            yield "ond\n"
            if self.times == 2:
                raise ConnectionError("reset by peer")
            yield "third\n"

    client = Client()

    @contextmanager
    def asked(self: object) -> Iterator[Client]:
        try:
            yield client
        except ConnectionError as error:
            raise InputError(str(error)) from None

    ended = Standing("ended", 0)
    monkeypatch.setattr(ray_jobs, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(ray_jobs.RayJobs, "_asked", asked)
    monkeypatch.setattr(
        ray_jobs.RayJobs,
        "standing",
        lambda self, job: ended if client.times == 3 else Standing("running"),
    )
    job = new_job(experiment(zoo), "http://127.0.0.1:8265", "some")
    said = "".join(ray_jobs.RayJobs("http://127.0.0.1:8265").output(job))
    assert said == "first\nsecond\nthird\n"
    assert client.times == 3
    monkeypatch.setattr(ray_jobs, "SECONDS_TO_COME_BACK", 0.0)
    client.times = 1
    with pytest.raises(InputError, match="reset by peer"):
        list(ray_jobs.RayJobs("http://127.0.0.1:8265").output(job))


def test_jobs_of_another_machine_with_the_same_home(jobs: Path, zoo: Path) -> None:
    """They may be at work: they are not submitted again, and not told to end from here."""
    job = replace(new_job(experiment(zoo), "local", "1"), by="me on elsewhere")
    job.write()
    (job.folder / "alive").touch()
    target = find_target("local")
    assert target.at_work(job.name) == "1"
    assert target.standing(job).state == "running"
    assert "elsewhere" in target.standing(job).note
    with pytest.raises(InputError, match="runs on elsewhere: cancel it there"):
        target.cancel(job)
    (job.folder / "code").write_text("3")
    assert (target.standing(job).state, target.standing(job).code) == ("ended", 3)
    assert target.at_work(job.name) is None
