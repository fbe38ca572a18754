"""A node that does not see the output folder is found before work starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_zoo import content, write_zoo

from td_ray import yaml_files

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None,
        reason="hiding a folder from a process needs root and unshare",
    ),
]

SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from td_ray import Experiment, run
from td_ray.errors import InputError
from td_ray.sweep.connection import connected

# a node in whose eyes the folder is another, empty one
hide = 'mount -t tmpfs none "$0" && exec "$@"'
start = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
start += ["--min-worker-port=0", "--max-worker-port=0"]
cluster = Cluster()
cluster.add_node(num_cpus=1, include_dashboard=False)
command = ["unshare", "--mount", "sh", "-c", hide, os.getcwd(), *start]
blind = subprocess.Popen([*command, f"--address={cluster.address}"], stdout=subprocess.DEVNULL)
try:
    with connected(cluster.address):
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert blind.poll() is None
            time.sleep(0.1)
        try:
            run(Experiment.load("experiment.yaml"))
        except InputError as error:
            print(error)
finally:
    blind.terminate()
    blind.wait()
    cluster.shutdown()
"""


def test_an_output_that_a_node_does_not_see_is_refused(tmp_path: Path) -> None:
    write_zoo(tmp_path)
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(content()))
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    (line,) = ran.stdout.splitlines()
    assert line.startswith(f"output: {tmp_path}/output is not seen by the node ")
    assert "object store" in line
    assert not list((tmp_path / "output").rglob("*.parquet"))
