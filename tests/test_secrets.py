"""A run of its own Ray: nobody else can reach it, and no secret is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from small_zoo import content, write_zoo
from sockets import listening

from td_ray import yaml_files
from td_ray.ending import descendants

pytestmark = pytest.mark.ray

TOKEN = "c0ffee" * 10 + "feed"
PASSWORD = "hunter2hunter2"
SECRETS = (TOKEN, PASSWORD)
OUTPUT = "[red] a=b %41?#&"  # Tune keeps its files there, and takes what looks like an address


@dataclass
class Seen:
    """What a run showed to others while it was at work, and what it left.

    Attributes:
        sockets: addresses that its processes listened on.
        arguments: of its processes, which every user of the machine can read, at the last look:
            one that is writing its title shows, for a moment, what lies behind it in its memory.
        folder: with its output, its page and the logs of Ray.
    """

    folder: Path
    sockets: list[IPv4Address | IPv6Address] = field(default_factory=list)
    arguments: dict[int, str] = field(default_factory=dict)
    streams: str = ""


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """A run with secrets in its environment, in folders of its own."""
    folder = Path(tempfile.mkdtemp(prefix="td-", dir="/tmp"))  # Ray's socket paths must stay short
    write_zoo(folder)
    (folder / "experiment.yaml").write_text(yaml_files.write(content(seeds=1, output=OUTPUT)))
    environment = {
        **os.environ,
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_TMPDIR": str(folder),
        "TD_RAY_CACHE": str(folder / "cache"),
        "HF_TOKEN": PASSWORD,
        "HF_ENDPOINT": f"https://somebody:{PASSWORD}@mirror.invalid",
        "AWS_ACCESS_KEY_ID": PASSWORD,
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "AWS_SESSION_TOKEN": PASSWORD,
    }
    environment.pop("RAY_ADDRESS", None)
    found = Seen(folder)

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "td_ray.cli", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    ran = start("run", "experiment.yaml")
    while ran.poll() is None:
        processes = [ran.pid, *descendants(ran.pid)]
        sockets = listening(processes)
        found.sockets += sockets if len(sockets) > len(found.sockets) else []
        found.arguments |= {pid: text for pid in processes if (text := arguments_of(pid))}
        time.sleep(0.5)
    found.streams = ran.communicate()[0]
    assert ran.returncode == 0, found.streams
    hub = {"source": "huggingface", "model": "a/b", "revision": "0" * 40}
    other = yaml_files.write(content(models=[hub], output="other"))
    (folder / "hub.yaml").write_text(other)
    for arguments in (["report", OUTPUT], ["prefetch", "hub.yaml", "--check"]):
        with start(*arguments) as process:
            found.streams += process.communicate()[0]
    yield found
    shutil.rmtree(folder)


def arguments_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_run_listens_on_loopback_alone(seen: Seen) -> None:
    assert len(seen.sockets) > 5  # Ray's own servers, and those of its workers
    assert {str(address) for address in seen.sockets if not address.is_loopback} == set()


def test_secrets_are_not_among_the_arguments_of_processes(seen: Seen) -> None:
    together = "\n".join(seen.arguments.values())
    assert "raylet" in together
    assert not any(secret in together for secret in SECRETS)


def test_secrets_are_not_printed(seen: Seen) -> None:
    assert "mirror.invalid" in seen.streams  # what is missing is named with its address
    assert not any(secret in seen.streams for secret in SECRETS)


def test_secrets_are_in_no_file(seen: Seen) -> None:
    files = [path for path in seen.folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"report.html", "manifest.json", "pairs.parquet", "raylet.out"} <= names
    leaked = {
        str(path.relative_to(seen.folder))
        for path in files
        if any(secret.encode() in path.read_bytes() for secret in SECRETS)
    }
    assert leaked == set()
