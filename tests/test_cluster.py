"""Two nodes with fake GPUs: features are made where they are used, as GPU work, once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from td_ray import yaml_files

pytestmark = pytest.mark.ray

FACTORY = """
import json, os, time
import ray
from torch import nn

def build(folder):
    context = ray.get_runtime_context()
    seen = {"node": context.get_node_id(), "gpus": context.get_accelerator_ids()["GPU"]}
    with open(os.path.join(folder, "seen.jsonl"), "a") as file:
        file.write(json.dumps(seen) + "\\n")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
"""

SCRIPT = """
import ray
from ray.cluster_utils import Cluster
from td_ray import Experiment, run
from td_ray.sweep.connection import connected

cluster = Cluster()
cluster.add_node(num_cpus=1, num_gpus=1, include_dashboard=False)
cluster.add_node(num_cpus=1, num_gpus=1)
try:
    with connected(cluster.address):
        assert len(ray.nodes()) == 2
        results = run(Experiment.load("experiment.yaml"))
        assert results.failures().empty, results.failures().to_dict("records")
        assert results.matrix("digit").to_pandas().attrs["missing"] == 0
        again = run(Experiment.load("experiment.yaml", ["seeds=4", "output=more"]))
        assert len(again.heads()) == 8 * 9
finally:
    cluster.shutdown()
"""

MODELS = 8


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    from safetensors.torch import save_file
    from torch import manual_seed, nn

    for number in range(MODELS):
        manual_seed(number)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        save_file(network.state_dict(), tmp_path / f"net-{number}.safetensors")
    (tmp_path / "networks.py").write_text(FACTORY)
    values = {
        "models": [
            {
                "source": "checkpoints",
                "path": "net-*.safetensors",
                "factory": "networks:build",
                "arguments": {"folder": str(tmp_path)},
            }
        ],
        "data": [{"name": "digits", "source": "sklearn", "dataset": "digits", "stratify": "label"}],
        "tasks": [{"name": "digit", "data": "digits", "target": "label"}],
        "seeds": 2,
        "resources": {"gpus_per_extraction": 0.5, "device": "cpu", "cache": "cache"},
    }
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(values))
    return tmp_path


def test_features_are_made_once_as_gpu_work_on_the_nodes_of_their_trials(zoo: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=zoo, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = [json.loads(line) for line in (zoo / "seen.jsonl").read_text().splitlines()]
    assert len(seen) == MODELS  # the second run found them in the cache
    assert all(len(each["gpus"]) == 1 for each in seen)
    assert len({each["node"] for each in seen}) == 2
