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

import pytest
from sockets import listening

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
