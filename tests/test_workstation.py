"""clusters/workstation and jobs/, for real: a token-protected head, and experiments sent to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from processes import head_parts
from small_zoo import content, write_zoo
from sockets import listening

from td_ray import yaml_files
from td_ray.results.tables import Results, open_results

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "clusters/workstation"

pytestmark = pytest.mark.ray


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of the scripts and of clients, while the head runs."""
    port = free_port()
    folder = Path(f"/tmp/td-ray-test-{port}")  # Ray's socket paths must stay short
    knobs = {
        "PORT": str(port),
        "DASHBOARD_PORT": str(free_port()),
        "FOLDER": str(folder),
        "CPUS": "2",
    }
    environment = {**os.environ, **knobs}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    started = subprocess.run(
        [SCRIPTS / "start.sh"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert started.returncode == 0, started.stderr + (folder / "log").read_text()
    lines = started.stdout.splitlines()
    variables = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    yield {**environment, **variables}
    leader = (folder / "pid").read_text().strip()
    stopped = subprocess.run(
        [SCRIPTS / "stop.sh"], env=environment, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert stopped.returncode == 0
    assert set(stopped.stdout.split()) == {"unset", *variables}
    left = subprocess.run(["ps", "-o", "stat=", "--sid", leader], stdout=subprocess.PIPE, text=True)
    assert [state for state in left.stdout.split() if not state.startswith("Z")] == []
    shutil.rmtree(folder)


def td_ray(
    environment: Mapping[str, str], *arguments: str, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "td_ray.cli", *arguments],
        env=dict(environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_demo_as_a_job(
    head: dict[str, str], demo: Results, demo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "jobs").mkdir()
    shutil.copy(ROOT / "jobs/demo.yaml", tmp_path / "jobs")
    shutil.copytree(demo_folder, tmp_path / "td-ray-demo")
    address = f"127.0.0.1:{head['PORT']}"
    ran = td_ray(head, "run", "jobs/demo.yaml", "--address", address, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    sent = open_results(tmp_path / "td-ray-demo/job")
    here = demo.matrix("digit").to_pandas()
    assert (sent.matrix("digit").to_pandas() == here).all(axis=None)


def test_a_zoo_of_checkpoints_as_a_job(head: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "jobs/training_run", tmp_path / "job")
    trained = subprocess.run([sys.executable, "train.py"], cwd=tmp_path / "job", timeout=120)
    assert trained.returncode == 0
    address = f"127.0.0.1:{head['PORT']}"
    ran = td_ray(head, "run", str(tmp_path / "job/experiment.yaml"), "--address", address)
    assert ran.returncode == 0, ran.stderr
    results = open_results(tmp_path / "job/output")
    pairs = results.pairs().set_index("model_a")["value"]
    assert len(pairs) == 12
    assert pairs["epoch-00"] > pairs["epoch-06"] > pairs["epoch-11"] > 0


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path, models=8)
    heads = [{"kind": "logistic", "l2": 1e-4}, {"kind": "mlp", "hidden": 64, "epochs": 2000}]
    values = content(heads=heads, resources={"cache": "cache"})
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(values))
    return tmp_path


def test_jobs_are_submitted_followed_and_cancelled(head: dict[str, str], zoo: Path) -> None:
    client = {**head, "TD_RAY_JOBS": str(zoo / "jobs")}
    address = f"http://127.0.0.1:{head['DASHBOARD_PORT']}"
    on = ("submit", "experiment.yaml", "--on", address)
    submitted = td_ray(client, *on, cwd=zoo)
    assert submitted.returncode == 0, submitted.stderr
    assert "submitted: td-ray-small-" in submitted.stderr
    assert f"dashboard: {address}/#/jobs/td-ray-small-" in submitted.stderr
    deadline = time.monotonic() + 120
    while not head_parts(zoo):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = td_ray(client, *on, cwd=zoo)
    assert (again.returncode, "at work already" in again.stderr) == (0, True), again.stderr
    elsewhere = td_ray(client, "submit", "experiment.yaml", "--on", "local", cwd=zoo)
    assert (elsewhere.returncode, "writes to the same output" in elsewhere.stderr) == (2, True)
    cancelled = td_ray(client, "cancel", "experiment.yaml", cwd=zoo)
    assert cancelled.returncode == 0, cancelled.stderr
    while (job := listed(client, zoo)[0])["state"] != "ended":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (job["code"], job["note"]) == (143, "STOPPED")
    before = head_parts(zoo)
    followed = td_ray(client, "submit", "experiment.yaml", "--on", "ray", "--follow", cwd=zoo)
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert "attempt 2" in followed.stderr
    assert "results in" in followed.stdout
    after = head_parts(zoo)
    assert len(before) < len(after)
    assert {path: after[path] for path in before} == before
    assert [each["code"] for each in listed(client, zoo)] == [0, 143]


def listed(client: dict[str, str], zoo: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]]
    found = json.loads(td_ray(client, "jobs", "experiment.yaml", "--json", cwd=zoo).stdout)
    return found


def test_a_folder_is_sent_along(
    head: dict[str, str], zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    client = {**head, "TD_RAY_JOBS": str(tmp_path_factory.mktemp("jobs"))}
    output = tmp_path_factory.mktemp("elsewhere") / "output"
    on = ("submit", "experiment.yaml", "--on", "ray", "--ship", "--follow")
    refused = td_ray(client, *on, cwd=zoo)
    assert refused.returncode == 2
    assert "would lie in the folder that is sent" in refused.stderr
    heads = "heads=[logistic, ridge]"
    large = zoo / "large.bin"
    with large.open("wb") as file:
        file.truncate(101 * 2**20)
    refused = td_ray(client, *on, "--set", f"output={output}", "--set", heads, cwd=zoo)
    assert refused.returncode == 2
    assert "at most 100 can be sent with a job; the largest are large.bin (101 MiB)" in (
        refused.stderr
    )
    large.unlink()
    ran = td_ray(client, *on, "--set", f"output={output}", "--set", heads, cwd=zoo)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(open_results(output).pairs()) == 2 * 8 * 7 / 2


def test_the_exit_code_of_a_job_is_that_of_the_run(
    head: dict[str, str], zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (zoo / "points.csv").unlink()
    client = {**head, "TD_RAY_JOBS": str(tmp_path_factory.mktemp("jobs"))}
    ended = td_ray(client, "submit", "experiment.yaml", "--on", "ray", "--follow", cwd=zoo)
    assert ended.returncode == 2, ended.stderr
    assert "points.csv" in ended.stdout
    stranger = {
        **client,
        "RAY_AUTH_TOKEN": "0" * 64,
        "TD_RAY_JOBS": str(tmp_path_factory.mktemp("jobs")),
    }
    del stranger["RAY_AUTH_TOKEN_PATH"]
    address = f"http://127.0.0.1:{head['DASHBOARD_PORT']}"
    refused = td_ray(stranger, "submit", "experiment.yaml", "--on", address, cwd=zoo)
    assert refused.returncode == 2
    assert [line[:20] for line in refused.stderr.splitlines()] == ["td-ray: the jobs API"]
    assert "token" in refused.stderr


def test_nobody_without_the_token_gets_in(head: dict[str, str], tmp_path: Path) -> None:
    marker = tmp_path / "intruder"
    request = urllib.request.Request(
        f"http://127.0.0.1:{head['DASHBOARD_PORT']}/api/jobs/",
        data=json.dumps({"entrypoint": f"touch {marker}"}).encode(),
        headers={"content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 401
    refused.value.close()
    stranger = {**head, "RAY_AUTH_TOKEN": "0" * 64}
    del stranger["RAY_AUTH_TOKEN_PATH"]
    shutil.copytree(ROOT / "jobs/training_run", tmp_path / "job")
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path / "job", check=True, timeout=120)
    address = f"127.0.0.1:{head['PORT']}"
    ran = td_ray(stranger, "run", str(tmp_path / "job/experiment.yaml"), "--address", address)
    assert ran.returncode == 2, ran.stderr
    assert "token" in ran.stderr.splitlines()[-1]
    time.sleep(1)
    assert not marker.exists()


def test_it_listens_on_loopback_alone(head: dict[str, str]) -> None:
    leader = (Path(head["FOLDER"]) / "pid").read_text().strip()
    ps = subprocess.run(["ps", "-o", "pid=", "--sid", leader], stdout=subprocess.PIPE, text=True)
    sockets = listening(map(int, ps.stdout.split()))
    assert len(sockets) > 5
    assert all(address.is_loopback for address in sockets)


def test_the_token_is_kept_from_others(head: dict[str, str]) -> None:
    token = Path(head["RAY_AUTH_TOKEN_PATH"])
    assert len(token.read_text()) == 64
    assert token.stat().st_mode & 0o077 == 0
    assert token.parent.stat().st_mode & 0o077 == 0
    assert token.read_text() not in (token.parent / "log").read_text()


def test_a_second_head_in_the_same_folder_is_refused(head: dict[str, str]) -> None:
    again = subprocess.run([SCRIPTS / "start.sh"], env=head, capture_output=True, text=True)
    assert again.returncode == 1
    assert "runs already" in again.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_pass_shellcheck() -> None:
    subprocess.run(["shellcheck", *SCRIPTS.glob("*.sh"), ROOT / ".ci/run"], check=True)
