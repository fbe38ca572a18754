"""clusters/aws.yaml and gcp.yaml pass Ray's own validation, which finds misspelt keys."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
CLOUDS = ["aws", "gcp"]


def validated(config: dict[str, Any]) -> dict[str, Any]:
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.fixture(params=CLOUDS)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    text = (ROOT / f"clusters/{request.param}.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_they_are_valid(config: dict[str, Any]) -> None:
    prepared = validated(config)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize(
    ("room", "key"),
    [("", "max_worker"), ("docker", "imge"), ("auth", "ssh_usr"), ("head", "resource")],
)
def test_a_misspelt_key_is_noticed(config: dict[str, Any], room: str, key: str) -> None:
    here = config["available_node_types"]["head"] if room == "head" else config.get(room, config)
    here[key] = 1
    with pytest.raises(ValidationError, match=key):
        validated(config)


def test_nobody_without_the_token_gets_in(config: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    (start,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in start


def test_workers_are_spot_machines_with_gpus(config: dict[str, Any]) -> None:
    worker = config["available_node_types"]["worker"]
    assert "spot" in yaml.safe_dump(worker["node_config"]).lower()
    assert worker["min_workers"] >= 1  # a run wants to see a CPU when it begins


HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not installed")
def test_the_dockerfile_passes_hadolint() -> None:
    ran = subprocess.run([HADOLINT, ROOT / "clusters/Dockerfile"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_yaml_passes_yamllint() -> None:
    folders = [ROOT / name for name in ("clusters", "jobs", "td_ray/template.yaml")]
    command = [sys.executable, "-m", "yamllint", "-c", ROOT / ".yamllint", *folders]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
