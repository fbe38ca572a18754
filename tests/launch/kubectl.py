"""A stand-in for kubectl that keeps objects in a folder, and says what the real one says.

It knows the calls that td-ray makes of it, and no others. A file `refused` in the folder makes the
cluster refuse RayJobs, as it does where KubeRay is not installed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml

STATE = Path(os.environ["KUBECTL_STATE"])


def fail(words: str) -> NoReturn:
    sys.exit(f"E1129 10:00:00.000000   12345 memcache.go:1] a line of its log\n{words}")


def place(kind: str, name: str) -> Path:
    return STATE / f"{kind.lower()}.{name}.json"


def create(text: str) -> None:
    for document in yaml.safe_load_all(text):
        kind, name = document["kind"], document["metadata"]["name"]
        if kind == "RayJob" and (STATE / "refused").exists():
            fail(
                'error: resource mapping not found for name: "x" namespace: "" from "STDIN": no '
                'matches for kind "RayJob" in version "ray.io/v1"'
            )
        if place(kind, name).exists():
            fail(f'Error from server (AlreadyExists): {kind.lower()}s "{name}" already exists')
        place(kind, name).write_text(json.dumps(document))


def get(name: str) -> None:
    if not place("RayJob", name).exists():
        fail(f'Error from server (NotFound): rayjobs.ray.io "{name}" not found')
    print(place("RayJob", name).read_text())


def get_labelled(label: str, value: str) -> None:
    found: list[Any] = [json.loads(each.read_text()) for each in STATE.glob("rayjob.*.json")]
    items = [each for each in found if each["metadata"]["labels"].get(label) == value]
    print(json.dumps({"kind": "List", "items": items}))


match sys.argv[1:]:
    case ["create", "-f", "-"]:
        create(sys.stdin.read())
    case ["get", "rayjob", name, "-o", "json"]:
        get(name)
    case ["get", "rayjobs", selector, "-o", "json"] if selector.startswith("--selector="):
        get_labelled(*selector.removeprefix("--selector=").split("="))
    case ["logs", job]:
        log = STATE / f"{job.removeprefix('job/')}.log"
        if not log.exists():
            fail(f'error: timed out waiting for the condition on "{job}"')
        print(log.read_text(), end="")
    case ["delete", kinds, name, *_]:
        for kind in kinds.split(","):
            place(kind, name).unlink(missing_ok=True)
    case other:
        fail(f"error: unknown command {other}")
