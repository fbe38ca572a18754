"""The same sweep through Ray: equal results, and failures that cost their own rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import SAMPLES, content, experiment, write_features, write_zoo

from td_ray.errors import InputError, MachineError
from td_ray.spec import Experiment
from td_ray.sweep import run
from td_ray.sweep.progress import Quiet

pytestmark = pytest.mark.ray

FACTORY = """
from torch import nn

def build(explode=False):
    if explode:
        raise KeyError("boom")
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Feature arrays and checkpoints, some of them bad in ways that only work finds."""
    import torch
    from safetensors.torch import save_file

    write_zoo(tmp_path)
    ids = pd.read_csv(tmp_path / "points.csv")["id"]
    write_features(tmp_path / "features/nan-0.npz", ids, np.full((SAMPLES, 3), np.nan))
    inputs = np.load(tmp_path / "features/net-0.npz")["features"]
    np.save(tmp_path / "inputs.npy", inputs)
    (tmp_path / "networks.py").write_text(FACTORY)
    (tmp_path / "checkpoints").mkdir()
    for name, width in (("good", 6), ("misfit", 7)):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Linear(width, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
        )
        save_file(network.state_dict(), tmp_path / f"checkpoints/{name}.safetensors")
    (tmp_path / "checkpoints/garbage.pt").write_bytes(b"not a checkpoint")
    return tmp_path


def wanted(folder: Path, **changes: Any) -> Experiment:
    checkpoints = {"source": "checkpoints", "factory": "networks:build"}
    models = [
        *content()["models"],
        {**checkpoints, "path": ["checkpoints/*.safetensors", "checkpoints/*.pt"]},
        {
            **checkpoints,
            "path": "checkpoints/good.safetensors",
            "name": "exploding",
            "arguments": {"explode": True},
        },
    ]
    (data,) = content()["data"]
    return experiment(folder, models=models, data=[{**data, "inputs": "inputs.npy"}], **changes)


def test_ray_and_inline_agree_on_results_and_failures(zoo: Path, ray_session: None) -> None:
    measures = {"measures": ["td", "negative_flip_rate", "cka", "mimic"]}
    on_ray = run(wanted(zoo, **measures))
    inline = run(wanted(zoo, output="inline", **measures), backend="inline")
    for name in ("models", "heads", "predictions", "pairs", "comparisons", "failures"):
        pd.testing.assert_frame_equal(on_ray.table(name), inline.table(name))
    counts = on_ray.pairs()["measure"].value_counts().to_dict()
    assert counts == {"td": 20, "negative_flip_rate": 20, "cka": 10, "mimic": 40}
    failures = on_ray.failures().drop_duplicates("model").set_index("model")["error"]
    assert set(failures.index) == {"nan-0", "misfit", "garbage", "exploding"}
    assert "NaN or infinite features" in failures["nan-0"]
    assert "misfit.safetensors does not fit its factory 'networks:build'" in failures["misfit"]
    assert "garbage.pt" in failures["garbage"]
    assert "KeyError: 'boom'" in failures["exploding"]
    assert (on_ray.failures()["stage"] == "features").all()
    assert set(on_ray.heads()["model"]) == {"net-0", "net-1", "net-2", "net-3", "good"}


def test_the_order_of_blocks_on_reused_actors_does_not_matter(zoo: Path, ray_session: None) -> None:
    first = run(wanted(zoo)).pairs()
    models = list(reversed(wanted(zoo).model_dump(mode="json")["models"]))
    turned = run(wanted(zoo, output="turned").model_copy(update={"models": _parsed(zoo, models)}))
    key = ["task", "model_a", "model_b"]
    again = turned.pairs()
    swap = again["model_a"] > again["model_b"]
    other = first["model_a"] > first["model_b"]
    for table, flip in ((again, swap), (first, other)):
        for left, right in (("model_a", "model_b"), ("floor_a", "floor_b"), ("layer_a", "layer_b")):
            table.loc[flip, [left, right]] = table.loc[flip, [right, left]].to_numpy()
    columns = [*key, "value", "floor_a", "floor_b", "tdx", "excess"]
    pd.testing.assert_frame_equal(
        first.sort_values(key, ignore_index=True)[columns],
        again.sort_values(key, ignore_index=True)[columns],
    )


def _parsed(folder: Path, models: list[dict[str, Any]]) -> Any:
    values = wanted(folder).model_dump(mode="json")
    return Experiment.parse({**values, "models": models}).models


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ({"cpus_per_trial": 1000}, "cpus_per_trial is 1000, and no node has more than"),
        ({"gpus_per_extraction": 64}, "gpus_per_extraction is 64, and no node has more than"),
    ],
)
def test_a_share_that_no_node_has_is_refused(
    zoo: Path, ray_session: None, share: dict[str, int], words: str
) -> None:
    """Ray would wait for such a node for ever."""
    with pytest.raises(InputError, match=words):
        run(wanted(zoo, resources=share))


def test_trouble_of_a_machine_is_no_failure_of_a_unit(zoo: Path, ray_session: None) -> None:
    """A folder that cannot be written ends the run; nothing is held against the units."""
    run(wanted(zoo), backend="inline")
    shutil.rmtree(zoo / "output/parts")
    (zoo / "output/parts").mkdir()
    (zoo / "output/parts/heads").write_text("in the way")
    with pytest.raises(MachineError, match="parts/heads"):
        run(wanted(zoo))
    (zoo / "output/parts/heads").unlink()
    assert set(run(wanted(zoo)).failures()["model"]) == {"nan-0", "misfit", "garbage", "exploding"}
    assert not list((zoo / "output").glob(".tune*"))


class Heard(Quiet):
    """Keeps what it hears of samples; cannot be copied, like a bar on a terminal."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.counts: list[int] = []

    def samples(self, count: int) -> None:
        self.counts.append(count)


COUNTING = """
from torch import nn

class Counting(nn.Sequential):
    def forward(self, x):
        with open({path!r}, "a") as file:
            file.write(f"{{len(x)}}\\n")
        return super().forward(x)

def build():
    return Counting(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
"""


def test_layers_of_one_network_share_a_pass(zoo: Path, ray_session: None) -> None:
    passes = zoo / "passes"
    (zoo / "counting.py").write_text(COUNTING.format(path=str(passes)))
    layers = ["0", "1", "penultimate", "output"]
    model = {
        "source": "checkpoints",
        "path": "checkpoints/good.safetensors",
        "factory": "counting:build",
        "layers": layers,
    }
    (data,) = content()["data"]
    resources = {"memory": "64TiB"}  # more than any node has, which is then given to one trial
    data = {**data, "inputs": "inputs.npy"}
    several = experiment(zoo, models=[model], data=[data], resources=resources)
    heard = Heard()
    results = run(several, reporter=heard)
    assert sum(heard.counts) == SAMPLES
    assert results.failures().empty
    assert set(results.heads()["layer"]) == set(layers)
    assert sum(map(int, passes.read_text().split())) == SAMPLES
