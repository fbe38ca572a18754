"""Models, heads and measures that hang, that need too much memory, or that end their process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_zoo import TASKS, content, experiment, write_features, write_zoo

from td_ray import yaml_files
from td_ray.results.tables import Results, open_results
from td_ray.sweep import run
from td_ray.sweep.lost import run_until_ended
from td_ray.sweep.progress import Quiet

PLUGIN = """
import os, signal, time
from dataclasses import replace

import numpy as np

from td_ray.head_kinds.exact import Ridge
from td_ray.head_kinds.stochastic import Linear
from td_ray.measures import find_measure
from td_ray.registry import HEAD_KINDS, MEASURES

def hang_where(hangs):
    while hangs:
        time.sleep(1)

@HEAD_KINDS.register("idle")
class Idle(Ridge):
    meant_for = ("classification",)

    def fit(self, training):
        hang_where(training.features.shape[1] == 7)
        return Ridge(kind="ridge").fit(training)

@HEAD_KINDS.register("fatal")
class Fatal(Idle):
    def fit(self, training):
        if training.features.shape[1] == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(training)

@HEAD_KINDS.register("dawdling")
class Dawdling(Linear):
    def race(self, training, candidates):
        hang_where(training.features.shape[1] == 7)
        yield from super().race(training, candidates)

def stuck(differ, n):
    hang_where(True)

form = replace(find_measure("td").forms["disagreement"], value=stuck)
MEASURES.register("stuck")(replace(find_measure("td"), name="stuck", forms={"disagreement": form}))
"""

NETWORKS = """
import time
import torch
from torch import nn

class Trouble(nn.Identity):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.kept = kind, []

    def forward(self, x):
        if self.kind == "hanging":
            time.sleep(1e6)
        while self.kind == "hungry" and len(self.kept) < 4 * 10:
            self.kept.append(torch.ones(2**26))  # 256 MiB
            time.sleep(0.05)
        return x

def build(kind):
    return nn.Sequential(Trouble(kind), nn.Linear(6, 3))
"""

LIMIT = 6.0
MOST_EXTRA = 7 * 2**30
"""Bytes beyond what the machine uses now, at which Ray ends processes; a run itself takes 2.

Other tests, at work beside this one, may take as much again.
"""


def write_troubled_zoo(folder: Path, *kinds: str, **changes: Any) -> None:
    """Two models that are well, and networks that make some kind of trouble."""
    import torch
    from safetensors.torch import save_file

    write_zoo(folder, models=2)
    with np.load(folder / "features/net-0.npz") as arrays:
        np.save(folder / "inputs.npy", arrays["features"])
    save_file({"1.weight": torch.eye(3, 6), "1.bias": torch.zeros(3)}, folder / "net.safetensors")
    (folder / "networks.py").write_text(NETWORKS)
    checkpoint = {"source": "checkpoints", "path": "net.safetensors", "factory": "networks:build"}
    models = [{**checkpoint, "name": kind, "arguments": {"kind": kind}} for kind in kinds]
    (data,) = content()["data"]
    values = content(
        models=[*content()["models"], *models],
        data=[{**data, "inputs": "inputs.npy"}],
        tasks=TASKS[:1],
        seeds=1,
        **changes,
    )
    (folder / "experiment.yaml").write_text(yaml_files.write(values))


def write_plugin(folder: Path) -> None:
    """Heads and a measure of another package."""
    about = folder / "plugin-1.dist-info"
    about.mkdir()
    (folder / "plugin.py").write_text(PLUGIN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    names = {"heads": ("idle", "fatal", "dawdling"), "measures": ("stuck",)}
    lines = [
        f"[td_ray.{group}]\n" + "".join(f"{name} = plugin\n" for name in those)
        for group, those in names.items()
    ]
    (about / "entry_points.txt").write_text("".join(lines))


def run_troubled(folder: Path, **environment: str) -> Results:
    """Run through Ray; nothing is left missing."""
    path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    for arguments, code in ((["run"], 3), (["status", "--json"], 0)):
        ended = subprocess.run(
            [sys.executable, "-m", "td_ray.cli", *arguments, "experiment.yaml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert ended.returncode == code, ended.stderr[-3000:]
    assert json.loads(ended.stdout)["missing"] == 0
    return open_results(folder / "output")


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One run in which a model, heads of another, and a measure hang or end their processes."""
    folder = tmp_path_factory.mktemp("troubled")
    heads = [
        "fatal",
        "idle",
        {"kind": "idle", "name": "idle-too", "l2": 1e-2},
        {"kind": "dawdling", "learning_rate": [1e-2, 1e-1], "epochs": 5},
        "logistic",
    ]
    resources = {"time_limit": LIMIT, "cache": "cache"}
    changes: dict[str, Any] = {"heads": heads, "measures": ["td", "stuck"], "resources": resources}
    write_troubled_zoo(folder, "hanging", **changes)
    write_plugin(folder)
    with np.load(folder / "features/net-0.npz") as arrays:
        ids, features = arrays["id"], arrays["features"]
    write_features(folder / "features/wide-0.npz", ids, np.hstack([features, features[:, :1]]))
    return run_troubled(folder)


def used_memory() -> int:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return total_memory() - int(lines["MemAvailable"].split()[0]) * 1024


def total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def errors(results: Results, **where: str) -> set[str]:
    failures = results.failures()
    for column, value in where.items():
        failures = failures[failures[column] == value]
    return set(failures["error"])


@pytest.mark.ray
def test_others_have_all_their_rows(troubled: Results) -> None:
    heads = troubled.heads()
    whole = {"fatal", "idle", "idle-too", "dawdling", "logistic"}
    for model in ("net-0", "net-1"):
        assert set(heads[heads["model"] == model]["head"]) == whole
    pairs = troubled.pairs().groupby("head").size().to_dict()
    assert pairs == {"fatal": 1, "idle": 1, "idle-too": 1, "dawdling": 1, "logistic": 3}
    assert set(troubled.failures()["model"].dropna()) == {"wide-0", "hanging"}


@pytest.mark.ray
def test_a_model_that_hangs_is_ended(troubled: Results) -> None:
    (error,) = errors(troubled, model="hanging", head="logistic")
    assert error.startswith("model 'hanging' on data set 'points': no sample went through for 6 s")
    assert "resources.time_limit" in error


@pytest.mark.ray
def test_a_model_that_needs_too_much_memory_is_given_up(tmp_path: Path) -> None:
    threshold = (used_memory() + MOST_EXTRA) / total_memory()
    if threshold > 0.9:
        pytest.skip("memory is short already")
    write_troubled_zoo(tmp_path, "hungry", resources={"cache": "cache"})
    results = run_troubled(tmp_path, RAY_memory_usage_threshold=f"{threshold:.4f}")
    (error,) = errors(results)
    assert error.startswith("model 'hungry' on data set 'points': its process was ended too often")
    assert "since its node ran out of memory (" in error
    assert "GB of it by this process); a smaller resources.batch_size needs less" in error
    assert set(results.failures()["model"]) == {"hungry"}
    assert len(results.pairs()) == 1


@pytest.mark.ray
def test_a_head_that_kills_its_process_costs_itself(troubled: Results) -> None:
    (error,) = errors(troubled, model="wide-0", head="fatal", stage="heads")
    who = "model 'wide-0' at 'output', task 'species', head 'fatal'"
    assert error.startswith(f"{who}: its process was lost too often: ")
    assert len(error.splitlines()) == 1


@pytest.mark.ray
def test_heads_that_hang_cost_themselves(troubled: Results) -> None:
    heads = troubled.heads()
    assert set(heads[heads["model"] == "wide-0"]["head"]) == {"logistic"}
    for head, stage in (("idle", "heads"), ("idle-too", "heads"), ("dawdling", "search")):
        (error,) = errors(troubled, model="wide-0", head=head)
        who = f"model 'wide-0' at 'output', task 'species', head '{head}'"
        assert error.startswith(f"{who}: it took longer than 6 s, and its process was ended")
        assert errors(troubled, model="wide-0", head=head, stage=stage)


@pytest.mark.ray
def test_a_measure_that_hangs_costs_its_own_tiles(troubled: Results) -> None:
    failures = troubled.failures()
    tiles = failures[failures["model"].isna()]
    assert set(tiles["stage"]) == {"pairs"}
    assert len(tiles) == 5  # one for each head
    (error,) = set(tiles["error"])
    assert error.startswith("measure 'stuck' on data set 'points': it took longer than 6 s")
    assert set(troubled.pairs()["measure"]) == {"td"}


def test_units_that_take_their_process_with_them_cost_themselves() -> None:
    """A group is given up only where one unit after the other does so."""
    bad = {"a": [2], "b": [0, 1, 2, 3, 4], "c": [], "d": [0, 1, 3, 4]}
    done: dict[str, list[int]] = {group: [] for group in bad}
    failed: dict[str, list[int]] = {group: [] for group in bad}
    starts = dict.fromkeys(bad, 0)

    def left_of(group: str) -> list[tuple[str, int]]:
        ended = done[group] + failed[group]
        return [(group, unit) for unit in range(5) if unit not in ended]

    def work(groups: Sequence[str]) -> list[tuple[int, str]]:
        lost = []
        for place, group in enumerate(groups):
            starts[group] += 1
            for _, unit in left_of(group):
                if unit in bad[group]:
                    lost.append((place, f"lost at {unit}"))
                    break
                done[group].append(unit)
        return lost

    def give_up(units: Sequence[tuple[str, int]], error: str) -> None:
        assert error == f"lost at {units[0][1]}"
        for group, unit in units:
            failed[group].append(unit)

    run_until_ended(list(bad), lambda group: len(left_of(group)), work, left_of, give_up)
    assert done == {"a": [0, 1, 3, 4], "b": [], "c": [0, 1, 2, 3, 4], "d": [2]}
    assert failed == {"a": [2], "b": [0, 1, 2, 3, 4], "c": [], "d": [0, 1, 3, 4]}
    assert starts == {"a": 3, "b": 3, "c": 1, "d": 5}


def test_inline_says_that_it_ends_nothing(zoo: Path) -> None:
    class Said(Quiet):
        def say(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    wanted: dict[str, Any] = {"tasks": TASKS[:1], "seeds": 0}
    run(experiment(zoo, **wanted), backend="inline", reporter=Said())
    assert not said
    run(experiment(zoo, **wanted, resources={"time_limit": 60}), backend="inline", reporter=Said())
    assert said == ["resources.time_limit: ignored by 'inline', whose process has to stay"]
