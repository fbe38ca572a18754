"""The loop around networks: layers, batches, threads, memory, and what may go wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_data import dataset
from torch import Tensor

from td_ray.errors import WorkError
from td_ray.extraction import extract_features
from td_ray.extraction.networks import (
    AUTO_BYTES,
    AUTO_ROWS,
    auto_batch,
    batches_ahead,
    run_network,
)
from td_ray.features import FeatureStore, Pass, features_key
from td_ray.files import sha256
from td_ray.spec import Experiment, Resources
from td_ray.sweep import run
from td_ray.work.extracting import extract_into
from td_ray.zoo import Representation
from td_ray.zoo.checkpoints import Checkpoints
from td_ray.zoo.network import Network

INPUTS = np.arange(46, dtype=np.float32).reshape(23, 2)


class Doubling(Network):
    """Gives twice its inputs, and remembers what it saw."""

    def __init__(self, forward: Callable[[Tensor], Any] | None = None, wait: float = 0.0) -> None:
        self.given, self.wait = forward, wait
        self.prepared: list[int] = []
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def prepare(self, block: Any) -> Tensor:
        self.threads.add(threading.current_thread().name)
        self.prepared.append(len(block))
        return torch.from_numpy(np.array(block))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        time.sleep(self.wait)
        self.batches.append(len(batch))
        if self.given is not None:
            self.given(batch)
        return {"double": batch * 2, "sum": batch.sum(1, keepdim=True)}


def collect(network: Network, batch: int = 4, start: int = 0, inputs: Any = INPUTS) -> Any:
    blocks = list(run_network(network, inputs, batch, "model 'm'", start))
    return {x: np.concatenate([block[x] for block in blocks]) for x in blocks[0]}


@given(batch=st.integers(1, 30), start=st.integers(0, 22))
def test_rows_come_in_order_from_any_start(batch: int, start: int) -> None:
    found = collect(Doubling(), batch, start)
    np.testing.assert_array_equal(found["double"], 2 * INPUTS[start:])
    np.testing.assert_array_equal(found["sum"][:, 0], INPUTS[start:].sum(1))


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(os.cpu_count() == 1, reason="no core is left for another thread")
def test_inputs_are_prepared_ahead_in_another_thread_and_no_further() -> None:
    network = Doubling(wait=0.02)
    blocks = run_network(network, INPUTS, 2, "model 'm'")
    next(blocks)
    time.sleep(0.1)
    assert len(network.prepared) == batches_ahead() + 1
    assert threading.current_thread().name not in network.threads
    blocks.close()
    time.sleep(0.05)
    assert len(network.prepared) == batches_ahead() + 1
    assert not [t for t in threading.enumerate() if t.name.startswith("prepare")]


def too_large(limit: int, error: Exception) -> Callable[[Tensor], None]:
    def forward(batch: Tensor) -> None:
        if len(batch) > limit:
            raise error

    return forward


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("limit", [1, 3, 5])
def test_batches_are_halved_until_they_fit(error: Exception, limit: int) -> None:
    network = Doubling(too_large(limit, error))
    np.testing.assert_array_equal(collect(network, 16)["double"], 2 * INPUTS)
    # once it is known what fits, nothing larger is tried
    fits = next(number for number, size in enumerate(network.batches) if size <= limit)
    assert max(network.batches[fits:]) <= limit


def test_a_forward_pass_with_all_cores_prepares_its_inputs_itself() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        network = Doubling()
        collect(network)
    finally:
        torch.set_num_threads(threads)
    assert network.threads == {threading.current_thread().name}


def test_memory_that_does_not_suffice_for_one_sample() -> None:
    with pytest.raises(WorkError, match="model 'm': memory does not suffice for a single sample"):
        collect(Doubling(too_large(0, OUT_OF_MEMORY[0])))


def test_real_memory_that_is_not_there() -> None:
    def forward(batch: Tensor) -> None:
        if len(batch) > 2:
            torch.empty(2**60)

    np.testing.assert_array_equal(collect(Doubling(forward))["double"], 2 * INPUTS)


@pytest.mark.parametrize("in_prepare", [False, True])
def test_errors_say_where(in_prepare: bool) -> None:
    def fail(batch: Any) -> Any:
        raise ValueError("no\ngood")

    network = Doubling(fail)
    if in_prepare:
        network.prepare = fail  # type: ignore[method-assign]
    with pytest.raises(
        WorkError, match=r"model 'm' fails on inputs of shape \(4, 2\): ValueErr.*no g"
    ):
        collect(network)


class Reading:
    """Inputs that fail to be read from a row on."""

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, rows: slice) -> Any:
        if rows.stop > 9:
            raise WorkError("images are damaged: cat-9.png")
        return INPUTS[rows]


def test_inputs_that_cannot_be_read() -> None:
    blocks = run_network(Doubling(), Reading(), 4, "model 'm'")  # type: ignore[arg-type]
    assert [len(next(blocks)["sum"]) for _ in range(2)] == [4, 4]
    with pytest.raises(WorkError, match=r"cat-9\.png"):
        next(blocks)


class Enlarging(Network):
    """Prepares each input as so many bytes, as one tensor or as two."""

    def __init__(self, size: int, named: bool) -> None:
        self.size, self.named = size, named

    def prepare(self, block: Any) -> Any:
        whole = torch.zeros(1, dtype=torch.uint8).expand(len(block), self.size)
        half = whole[:, : self.size // 2]
        return {"a": half, "b": whole[:, self.size // 2 :]} if self.named else whole

    def forward(self, batch: Any) -> dict[str, Tensor]:
        raise NotImplementedError


@given(st.integers(1, 2**24), st.sampled_from(["cpu", "cuda"]), st.booleans())
def test_batches_hold_so_many_prepared_bytes(size: int, device: str, named: bool) -> None:
    rows = auto_batch(Enlarging(size, named), INPUTS, device)
    least, most = AUTO_ROWS[device]
    assert least <= rows <= most
    if least < rows < most:
        assert rows * size <= AUTO_BYTES[device] < (rows + 1) * size


def test_an_input_that_cannot_be_prepared_is_an_error_of_the_pass(counted: Path) -> None:
    (counted / "nets.py").write_text(NETS + "Counted.prepare = lambda self, block: 1 / 0\n")
    data = dataset([f"s{row}" for row in range(23)], INPUTS)
    (model,) = Checkpoints(**entry()).expand(counted, ["d"], counted)
    wanted = Pass(model, data, {"0": "k"})
    with pytest.raises(WorkError, match=r"fails on inputs of shape \(4, 2\): ZeroDivisionError"):
        list(extract_features(wanted, ["0"], 0, counted, Resources(device="cpu")))


NETS = """
import torch
passes = []
class Counted(torch.nn.Sequential):
    def forward(self, x):
        with open("passes", "a") as file:
            file.write(f"{len(x)}\\n")
        return super().forward(x)
def build():
    return Counted(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
"""


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose forward passes are written down."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    return tmp_path


def passes(folder: Path) -> int:
    """How many samples went through."""
    return sum(map(int, (folder / "passes").read_text().split()))


def entry(**options: Any) -> dict[str, Any]:
    return {"source": "checkpoints", "path": "a.pt", "factory": "nets:build", **options}


def write_data(folder: Path) -> dict[str, Any]:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(40, 2)).astype(np.float32)
    np.save(folder / "inputs.npy", inputs)
    rows = "\n".join(f"s{row},{'ab'[row % 2]}" for row in range(40))
    (folder / "labels.csv").write_text(f"id,kind\n{rows}\n")
    return {"name": "d", "source": "table", "path": "labels.csv", "inputs": "inputs.npy"}


def test_layers_of_one_model_share_a_pass(counted: Path) -> None:
    layers = ["0", "1", "output", "penultimate"]
    wanted = Experiment.parse(
        {
            "models": [entry(layers=layers)],
            "data": [write_data(counted)],
            "tasks": [{"name": "kind", "data": "d", "target": "kind"}],
            "heads": ["logistic"],
            "seeds": 1,
            "folder": str(counted),
            "resources": {"cache": str(counted / "cache")},
        }
    )
    results = run(wanted, backend="inline")
    assert results.failures().empty
    assert set(results.heads()["layer"]) == set(layers)
    assert passes(counted) == 40


def test_a_layer_that_is_not_there_does_not_cost_the_others(counted: Path) -> None:
    data = dataset([f"s{row}" for row in range(23)], INPUTS, inputs_are="inputs")
    (model,) = Checkpoints(**entry()).expand(counted, ["d"], counted)
    keys = {
        layer: str(features_key(Representation(model, layer), data, counted, sha256))
        for layer in ("0", "nothing")
    }
    wanted = Experiment.parse(
        {
            "models": [entry()],
            "data": [write_data(counted)],
            "tasks": [{"name": "kind", "data": "d", "target": "kind"}],
            "folder": str(counted),
        }
    )
    store = FeatureStore(counted, 10**9)
    heard: list[int] = []
    extract_into(store, keys["0"], Pass(model, data, keys), wanted, heard.append)
    assert store.valid(keys["0"])
    assert sum(heard) == 23
    with pytest.raises(WorkError, match="no layer 'nothing'"):
        extract_into(store, keys["nothing"], Pass(model, data, keys), wanted, heard.append)
