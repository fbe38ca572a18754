"""Nodes with fake GPUs and caches of their own: features are made once; nodes come and go."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from td_ray import yaml_files

pytestmark = pytest.mark.ray

FACTORY = """
import json, os, time
import ray
from torch import nn

def build(folder, number):
    context = ray.get_runtime_context()
    gpus, node = context.get_accelerator_ids()["GPU"], context.get_node_id()
    time.sleep(0.5)  # so that no node does the work of others
    seen = {"node": node, "gpus": gpus, "number": number}
    return nn.Sequential(Seen(folder, seen), nn.Linear(64, 8))

class Seen(nn.Flatten):
    def __init__(self, folder, seen):
        super().__init__()
        self.file, self.seen = os.path.join(folder, "seen.jsonl"), seen

    def forward(self, images):
        with open(self.file, "a") as file:
            file.write(json.dumps({**self.seen, "samples": len(images)}) + "\\n")
        return super().forward(images)
"""

SCRIPT = """
import itertools, json, os

import ray
from ray.cluster_utils import Cluster
from td_ray import Experiment, run
from td_ray.sweep.connection import connected
from td_ray.sweep.progress import Quiet

def add_node(**options):
    cache = {"TD_RAY_CACHE": os.path.abspath(f"cache-{next(numbers)}")}
    return cluster.add_node(num_cpus=1, num_gpus=1, env_vars=cache, **options)

class Killing(Quiet):
    '''In each stage one node is killed once a trial has ended, and in the first another joins.'''

    def stage(self, name, total):
        self.doomed = doomed.pop(name, None)

    def advance(self, done=1, failed=0):
        if self.doomed is not None:
            cluster.remove_node(self.doomed, allow_graceful=False)
            self.doomed = None
            if doomed:
                add_node()

cluster, numbers = Cluster(), itertools.count()
add_node(include_dashboard=False)
doomed = {"searches": add_node(), "heads": add_node()}
lost = [node.node_id for node in doomed.values()]
try:
    with connected(cluster.address):
        assert len(ray.nodes()) == 3
        results = run(Experiment.load("experiment.yaml"))
        assert results.failures().empty, results.failures().to_dict("records")
        assert results.matrix("digit").to_pandas().attrs["missing"] == 0
        first = sum(1 for _ in open("seen.jsonl"))

        head = {"kind": "linear", "learning_rate": [1e-3, 1e-2], "epochs": 40}
        changes = ["seeds=3", "output=more", f"heads={json.dumps([head])}"]
        results = run(Experiment.load("experiment.yaml", changes), reporter=Killing())
        assert not doomed
        assert results.failures().empty, results.failures().to_dict("records")
        assert len(results.heads()) == MODELS * 7
        assert results.matrix("digit").to_pandas().attrs["missing"] == 0
        print(json.dumps({"first": first, "lost": lost}))
finally:
    cluster.shutdown()
"""

MODELS = 9


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    from safetensors.torch import save_file
    from torch import manual_seed, nn

    for number in range(MODELS):
        manual_seed(number)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
        save_file(network.state_dict(), tmp_path / f"net-{number}.safetensors")
    (tmp_path / "networks.py").write_text(FACTORY)
    values = {
        "models": [
            {
                "source": "checkpoints",
                "path": f"net-{number}.safetensors",
                "factory": "networks:build",
                "arguments": {"folder": str(tmp_path), "number": number},
            }
            for number in range(MODELS)
        ],
        "data": [{"name": "digits", "source": "sklearn", "dataset": "digits", "stratify": "label"}],
        "tasks": [{"name": "digit", "data": "digits", "target": "label"}],
        "seeds": 2,
        "resources": {"gpus_per_extraction": 0.5, "device": "cpu", "batch_size": 2000},
    }
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(values))
    return tmp_path


def test_features_are_made_once_on_a_node_and_nodes_come_and_go(zoo: Path) -> None:
    """One node dies while candidates race for its features, one while heads are fitted on them."""
    ran = subprocess.run(
        [sys.executable, "-c", f"MODELS = {MODELS}\n{SCRIPT}"],
        cwd=zoo,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = json.loads(ran.stdout.splitlines()[-1])
    seen: list[dict[str, Any]]
    seen = [json.loads(line) for line in (zoo / "seen.jsonl").read_text().splitlines()]
    assert all(len(each["gpus"]) == 1 for each in seen)
    passes = Counter((each["node"], each["number"]) for each in seen)
    assert max(passes.values()) == 1  # on any one node
    first, later = seen[: said["first"]], seen[said["first"] :]
    assert len(first) == MODELS
    assert len({each["node"] for each in first}) == 3
    # features that were on a lost node were made again elsewhere, and no others
    where = {each["number"]: each["node"] for each in first}
    assert later
    assert {where[each["number"]] for each in later} == set(said["lost"])
    assert {each["node"] for each in later} - set(where.values())  # the node that joined
