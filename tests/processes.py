"""Runs as real processes, and what can be seen of them from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """A run of the experiment in a folder, in a session of its own; what it says goes to a log."""
    command = [sys.executable, "-m", "td_ray.cli", "run", "experiment.yaml", *options]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def head_parts(folder: Path) -> dict[Path, tuple[int, int]]:
    """Finished parts with their inodes and times: a part written again has others."""
    files = (folder / "output/parts/heads").glob("*/[!.]*.parquet")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def wait_for(folder: Path, process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not reached():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.02)


def wait_for_parts(folder: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    wait_for(folder, process, lambda: len(head_parts(folder)) >= number)


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").strip("\0 ")
    except OSError:
        return ""


def mentioning(text: str) -> list[int]:
    """Processes whose command line has a text in it."""
    return [
        pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if text in title(pid)
    ]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
