"""A real Slurm runs sweeps on two nodes; they are cancelled, queue again, and come to their end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import head_parts, mentioning
from slurm_cluster import require_slurm, slurm
from small_zoo import content, experiment, write_zoo

from td_ray import yaml_files
from td_ray.sweep import run

pytestmark = [pytest.mark.ray, pytest.mark.slurm]

MODELS = 12
FOUR_GPUS = ("--nodes", "2", "--gpus", "2", "--cpus", "2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    require_slurm()
    folder = tmp_path_factory.mktemp("slurm")
    with slurm(folder) as environment:
        environment.pop("RAY_ADDRESS", None)
        yield {**environment, "TD_RAY_JOBS": str(folder / "jobs")}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Trials that want a GPU each, of which a node has two."""
    write_zoo(tmp_path, models=MODELS)
    resources = {"cache": "cache", "gpus_per_trial": 1, "device": "cpu"}
    heads = [{"kind": "logistic", "l2": 1e-4}, {"kind": "mlp", "hidden": 64, "epochs": 800}]
    values = content(resources=resources, heads=heads, name=tmp_path.name)
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(values))
    return tmp_path


def td_ray(
    environment: dict[str, str], zoo: Path, *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "td_ray.cli", *arguments]
    ended = subprocess.run(
        command, env=environment, cwd=zoo, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == code, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended


def jobs_of(environment: dict[str, str], zoo: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]]
    found = json.loads(td_ray(environment, zoo, "jobs", "experiment.yaml", "--json").stdout)
    return found


def wait_until(is_so: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.1)


def nothing_is_left(job: dict[str, Any]) -> bool:
    """Neither a process of a job nor a file of its Ray."""
    scratch, zoo = f"/tmp/td-ray-{job['id']}", str(Path(job["output"]).parent)
    return not (Path(scratch).exists() or mentioning(scratch) or mentioning(zoo))


def require_undisturbed(zoo: Path) -> None:
    """The same as from one process that nobody disturbed."""
    values = yaml_files.read(zoo / "experiment.yaml")
    undisturbed = run(experiment(zoo, **values | {"output": "inline"}), backend="inline")
    for name in ("heads", "predictions", "pairs"):
        file = f"results/{name}/{name}.parquet"
        assert (zoo / "output" / file).read_bytes() == undisturbed.output.read(file)


def test_a_sweep_runs_on_both_nodes(cluster: dict[str, str], zoo: Path) -> None:
    submitted = td_ray(
        cluster, zoo, "submit", "experiment.yaml", "--on", "slurm", *FOUR_GPUS, "--follow"
    )
    assert "submitted: td-ray-" in submitted.stderr
    assert "heads: 36 of 36" in submitted.stdout
    (job,) = jobs_of(cluster, zoo)
    assert (job["state"], job["code"], job["target"]) == ("ended", 0, "slurm")
    logs = Path(cluster["TD_RAY_JOBS"]) / job["name"] / "1"
    nodes = {f"ray-{job['id']}-{node}.log" for node in ("n1", "n2")}
    assert nodes <= {path.name for path in logs.iterdir()}
    assert "4 CPUs and 4 GPUs on 2 nodes" in (logs / "log").read_text()
    require_undisturbed(zoo)
    wait_until(lambda: nothing_is_left(job), logs / "log")
    assert not any("RAY_AUTH_TOKEN=" in path.read_text() for path in logs.glob("*.log"))


def test_it_queues_again_when_its_time_is_over_and_goes_on_when_submitted_again(
    cluster: dict[str, str], zoo: Path
) -> None:
    submit = ("submit", "experiment.yaml", "--on", "slurm", *FOUR_GPUS)
    td_ray(cluster, zoo, *submit)
    (job,) = jobs_of(cluster, zoo)
    log = Path(cluster["TD_RAY_JOBS"]) / job["name"] / "1/log"
    wait_until(lambda: len(head_parts(zoo)) >= 2, log)
    again = td_ray(cluster, zoo, *submit)
    assert f"at work already: {job['name']}, attempt 1" in again.stderr
    other = td_ray(cluster, zoo, *submit, "--set", "seeds=3", code=2)
    assert "another content of the experiment" in other.stderr

    # as Slurm tells it before its time is over
    subprocess.run(
        ["scancel", "--batch", "--signal=USR1", job["id"]], env=cluster, check=True, timeout=30
    )
    wait_until(lambda: "ended by SIGUSR1" in log.read_text(), log)
    before = head_parts(zoo)
    assert 2 <= len(before) < 3 * MODELS
    wait_until(lambda: len(head_parts(zoo)) >= len(before) + 2, log)
    td_ray(cluster, zoo, "cancel", "experiment.yaml")
    wait_until(lambda: jobs_of(cluster, zoo)[0]["state"] == "ended", log)
    assert jobs_of(cluster, zoo)[0]["code"] == 143
    wait_until(lambda: nothing_is_left(job), log)
    before |= head_parts(zoo)
    assert len(before) < 3 * MODELS

    td_ray(cluster, zoo, *submit, "--follow")
    assert [each["attempt"] for each in jobs_of(cluster, zoo)] == [2, 1]
    after = head_parts(zoo)
    assert {path: after[path] for path in before} == before
    require_undisturbed(zoo)
    ended = td_ray(cluster, zoo, "cancel", "experiment.yaml", code=2)
    assert "has ended already with exit code 0" in ended.stderr


def test_its_exit_code_is_that_of_the_run(cluster: dict[str, str], zoo: Path) -> None:
    (zoo / "points.csv").unlink()
    ended = td_ray(
        cluster,
        zoo,
        "submit",
        "experiment.yaml",
        "--on",
        "slurm",
        "--cpus",
        "1",
        "--follow",
        code=2,
    )
    assert "points.csv" in ended.stdout


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (("--cpus", "1", "--partition", "night"), "invalid partition specified: night; "),
        (("--cpus", "1", "--gpus", "1", "--gpu-type", "h200"), "gpu"),
        (("--cpus", "1", "--gpus", "16"), "gpu"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused(
    cluster: dict[str, str], zoo: Path, wanted: tuple[str, ...], said: str
) -> None:
    refused = td_ray(cluster, zoo, "submit", "experiment.yaml", "--on", "slurm", *wanted, code=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("td-ray: sbatch: ")
    assert said in line
    assert "main (gpu:2" in line
    assert jobs_of(cluster, zoo) == []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_what_is_submitted_passes_shellcheck(cluster: dict[str, str], zoo: Path) -> None:
    options = (
        "--nodes",
        "3",
        "--cpus",
        "8",
        "--time",
        "1-12:00:00",
        "--memory",
        "64GiB",
        "--account",
        "a b",
    )
    shown = td_ray(
        cluster, zoo, "submit", "experiment.yaml", "--on", "slurm", *options, "--dry-run"
    )
    for line in ("nodes=3", "time=1-12:00:00", "mem=65536M", "account='a b'"):
        assert f"#SBATCH --{line}\n" in shown.stdout
    script = zoo / "job.sh"
    script.write_text(shown.stdout)
    subprocess.run(["shellcheck", script], check=True)
    assert jobs_of(cluster, zoo) == []
