"""Manifests fit the schemas of KubeRay, unknown fields refused, and run what Slurm runs too."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from small_zoo import experiment, write_zoo

from td_ray.errors import InputError
from td_ray.launch import dry_run
from td_ray.launch.files import cluster_file
from td_ray.spec import Experiment

SCHEMAS = Path(__file__).parent / "kuberay"


def strict(schema: Any) -> Any:
    """The same schema, with unknown fields refused wherever it names fields."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and isinstance(schema["properties"], dict):
        found.setdefault("additionalProperties", False)
    return found


def errors(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document of KubeRay's kinds."""
    schema = json.loads((SCHEMAS / f"{document['kind'].lower()}.schema.json").read_text())
    whole = strict(schema)
    whole["properties"]["metadata"] = {"type": "object"}
    found = Draft202012Validator(whole).iter_errors(document)
    return [f"{each.json_path}: {each.message}" for each in found]


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(each)) for each in yaml.safe_load_all(text)]


def shared(tmp_path: Path, **changes: Any) -> Experiment:
    """An experiment on the volume that pods share."""
    write_zoo(tmp_path)
    return experiment(tmp_path, **changes).model_copy(update={"folder": Path("/shared/zoo")})


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TD_RAY_JOBS", str(tmp_path / "jobs"))


@pytest.mark.parametrize("name", ["job.yaml", "cluster.yaml"])
def test_manifests_fit_the_schemas(name: str) -> None:
    text = cluster_file(f"kubernetes/{name}").read_text()
    for document in documents(text):
        if document["kind"] != "ConfigMap":
            assert errors(document) == []


def test_a_misspelt_field_is_noticed() -> None:
    *_, job = documents(cluster_file("kubernetes/job.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["imagePulPolicy"] = "Always"
    job["spec"]["shutdownAfterJobFinish"] = True
    job["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "none"
    assert len(errors(job)) == 3


def test_what_is_submitted_fits_too(tmp_path: Path) -> None:
    cluster = {
        "nodes": 8,
        "gpus": 4,
        "gpu_type": "nvidia.com/gpu.product=NVIDIA-L4",
        "cpus": 30,
        "memory": "200GiB",
        "time": "12:00:00",
    }
    wanted = shared(tmp_path, cluster=cluster)
    files, job = documents(dry_run(wanted, "kubernetes", ["--retry-failed"]))
    assert errors(job) == []
    assert files["kind"] == "ConfigMap"
    content = yaml.safe_load(files["data"]["experiment.yaml"])
    assert Experiment.parse(content) == wanted
    name = job["metadata"]["name"]
    assert files["metadata"]["name"] == name
    spec = job["spec"]
    assert spec["activeDeadlineSeconds"] == 43200
    group = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 8)
    pod = group["template"]["spec"]
    limits = {"cpu": "30", "memory": str(200 * 2**30), "nvidia.com/gpu": "4"}
    assert pod["containers"][0]["resources"] == {"limits": limits, "requests": limits}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    volumes = [each for each in pod["volumes"] if "configMap" in each]
    assert volumes[0]["configMap"]["name"] == name


def test_without_gpus_none_is_asked_for(tmp_path: Path) -> None:
    _, job = documents(dry_run(shared(tmp_path), "kubernetes"))
    (container,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"][
        "containers"
    ]
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert errors(job) == []


def test_pods_run_what_a_ray_cluster_runs(tmp_path: Path) -> None:
    from td_ray.launch.ray_jobs import PROGRAM

    _, job = documents(dry_run(shared(tmp_path), "kubernetes", ["--retry-failed"]))
    entry = shlex.split(job["spec"]["entrypoint"])
    assert entry == [*PROGRAM.split(), "run", "/experiment/experiment.yaml", "--retry-failed"]
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["experiment"] == "/experiment"


@pytest.mark.parametrize("name", ["job.yaml", "cluster.yaml"])
def test_nobody_outside_gets_in(name: str) -> None:
    *_, document = documents(cluster_file(f"kubernetes/{name}").read_text())
    spec = document["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in cluster["headGroupSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert not group["template"]["spec"].get("hostNetwork")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": "/home/me/out"}, "output is /home/me/out, which pods do not see"),
        ({"cluster": {"gpu_type": "l4"}}, "'l4' chooses no node; name a label and its value"),
        ({"name": "n" * 2**20}, "a ConfigMap holds 1,048,576"),
    ],
)
def test_what_cannot_be_submitted(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dry_run(shared(tmp_path, **changes), "kubernetes")


def test_a_folder_that_pods_do_not_see(tmp_path: Path) -> None:
    write_zoo(tmp_path)
    with pytest.raises(InputError, match="which pods do not see; they have the shared volume at"):
        dry_run(experiment(tmp_path), "kubernetes")
