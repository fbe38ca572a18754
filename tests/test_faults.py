"""Real processes are killed; nothing that had finished runs again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from processes import head_parts, is_alive, start, title, wait_for_parts
from small_zoo import content, experiment, write_zoo

from td_ray import yaml_files
from td_ray.ending import descendants
from td_ray.sweep import run

pytestmark = pytest.mark.ray

MODELS = 14


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path, models=MODELS)
    heads = [{"kind": "logistic", "l2": 1e-6, "scaling": "none"}, "ridge"]
    values = content(heads=heads, seeds=8, resources={"cache": "cache"})
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(values))
    return tmp_path


def wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 60
    while left := [pid for pid in processes if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)


def is_worker(pid: int) -> bool:
    """Whether a process does work; Ray's own two agents of a node end a minute or so later."""
    return title(pid).startswith("ray::") and "Agent" not in title(pid)


def test_a_killed_run_is_finished_by_running_again(zoo: Path) -> None:
    process = start(zoo)
    wait_for_parts(zoo, 5, process)
    workers = [pid for pid in descendants(process.pid) if is_worker(pid)]
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until_gone(workers)
    before = head_parts(zoo)
    assert 5 <= len(before) < 2 * MODELS
    process = start(zoo)
    wait_for_parts(zoo, len(before) + 1, process)
    rival = start(zoo)
    assert rival.wait(timeout=60) == 2
    assert f"in use by another run (pid {process.pid} on" in (zoo / "log").read_text()
    assert process.wait(timeout=300) == 0, (zoo / "log").read_text()
    after = head_parts(zoo)
    assert len(after) == 2 * MODELS
    assert {path: after[path] for path in before} == before
    timings = pd.read_parquet(zoo / "output/results/timings")
    finished = {path.parent.name for path in before}
    attempts = timings[timings["stage"] == "heads"]["unit"].value_counts()
    assert (attempts[list(finished & set(attempts.index))] == 1).all()
    assert not list((zoo / "output").rglob("*.tmp"))
    undisturbed = run(
        experiment(zoo, **yaml_files.read(zoo / "experiment.yaml") | {"output": "inline"}),
        backend="inline",
    )
    for name in ("heads", "predictions", "pairs"):
        file = f"results/{name}/{name}.parquet"
        assert (zoo / "output" / file).read_bytes() == undisturbed.output.read(file)
