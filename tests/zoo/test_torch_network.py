"""Features from torch modules: which layer, how pooled, and what a module may do wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from td_ray.errors import MachineError, WorkError
from td_ray.extraction.networks import run_network
from td_ray.zoo.devices import find_device
from td_ray.zoo.source import Precision
from td_ray.zoo.torch_network import TorchNetwork

INPUTS = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
IMAGES = np.random.default_rng(0).normal(size=(10, 3, 8, 8)).astype(np.float32)


def as_float(block: NDArray[Any]) -> Tensor:
    return torch.from_numpy(block).float()


def features(
    module: nn.Module,
    layer: str,
    inputs: NDArray[Any] = INPUTS,
    batch: int = 4,
    device: str = "cpu",
) -> NDArray[np.float32]:
    network = TorchNetwork(module, [layer], prepare=as_float, device=find_device(device), who="m")
    blocks = [block[layer] for block in run_network(network, inputs, batch, "model 'm'")]
    assert all(block.dtype == np.float32 and block.ndim == 2 for block in blocks)
    return np.concatenate(blocks)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))


class Module(nn.Module):
    """A module whose forward pass is given."""

    def __init__(self, forward: Callable[[Any], Any]) -> None:
        super().__init__()
        self.given = forward
        self.linear = nn.Linear(6, 3)
        self.unused = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return self.given(x)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_half_precision_is_that_of_autocast(precision: Precision) -> None:
    net = mlp()
    network = TorchNetwork(
        net, ["0", "output"], prepare=as_float, device="cpu", who="m", precision=precision
    )
    (found,) = run_network(network, INPUTS, 10, "model 'm'")
    kind = getattr(torch, precision)
    with torch.no_grad(), torch.autocast("cpu", kind, enabled=precision != "float32"):
        hidden = net[0](torch.from_numpy(INPUTS))
        output = net(torch.from_numpy(INPUTS))
    assert hidden.dtype == output.dtype == kind
    np.testing.assert_array_equal(found["0"], hidden.float())
    np.testing.assert_array_equal(found["output"], output.float())
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    assert net(torch.from_numpy(INPUTS)).dtype == torch.float32  # the mode ended with the pass


def test_layers() -> None:
    net = mlp()
    with torch.no_grad():
        before = net[0](torch.from_numpy(INPUTS))
        hidden = torch.relu(before)
        output = net[2](hidden)
    np.testing.assert_allclose(features(net, "output"), output, rtol=1e-6)
    np.testing.assert_allclose(features(net, "penultimate"), hidden, rtol=1e-6)
    np.testing.assert_allclose(features(net, "1"), hidden, rtol=1e-6)
    # the ReLU after it works in place, and must not change what was seen before it
    np.testing.assert_allclose(features(net, "0"), before, rtol=1e-6)


def test_unknown_layers() -> None:
    with pytest.raises(WorkError, match=r"model 'm' has no layer 'penultimat': did you mean 'penu"):
        features(mlp(), "penultimat")
    with pytest.raises(WorkError, match=r"has no layer '': known: "):
        features(mlp(), "")
    with pytest.raises(WorkError, match=r"no linear layer.*say layers: output"):
        features(nn.Sequential(nn.ReLU()), "penultimate")


def test_a_layer_that_is_not_used_is_no_layer() -> None:
    module = Module(lambda x: x * 2)
    for layer in ("unused", "penultimate"):
        with pytest.raises(WorkError, match=f"does not use its layer '{layer}'"):
            features(module, layer)
    np.testing.assert_array_equal(features(module, "output"), INPUTS * 2)


def test_penultimate_is_the_last_linear_layer_that_runs() -> None:
    module = Module(lambda x: module.linear(input=x + 1))  # 'unused' is defined after it
    np.testing.assert_array_equal(features(module, "penultimate"), INPUTS + 1)


def test_maps_and_tokens_are_averaged_over_positions() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        maps = conv(torch.from_numpy(IMAGES))
    np.testing.assert_allclose(
        features(conv, "output", IMAGES), maps.mean((2, 3)), rtol=1e-5, atol=1e-6
    )
    tokens = Module(lambda x: x.reshape(len(x), 2, 3))
    np.testing.assert_allclose(
        features(tokens, "output"), INPUTS.reshape(10, 2, 3).mean(1), rtol=1e-6
    )


@pytest.mark.parametrize("layer", ["output", "penultimate", "0"])
def test_batch_size_does_not_matter(layer: str) -> None:
    net = nn.Sequential(nn.Linear(6, 50), nn.Tanh(), nn.Linear(50, 3))
    whole = features(net, layer, batch=100)
    for batch in (1, 3, 10):
        np.testing.assert_allclose(features(net, layer, batch=batch), whole, atol=1e-5)


def test_evaluation_mode() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    first = features(net, "penultimate")
    np.testing.assert_array_equal(features(net, "penultimate"), first)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_outputs_of_other_types(dtype: torch.dtype) -> None:
    found = features(Module(lambda x: (x * 4).to(dtype).reshape(-1, 2, 3)), "output")
    assert found.shape == (10, 3)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda x: (x, x), "gives a tuple at layer 'output'"),
        (lambda x: {"a": x}, "gives a dict"),
        (lambda x: x.sum(1), r"gives shape \(4,\)"),
        (lambda x: x[..., None, None, None], r"gives shape \(4, 6, 1, 1, 1\)"),
        (lambda x: x.reshape(-1, 3), "gives 8 rows at layer 'output' for 4 samples"),
        (lambda x: x.sum(0, keepdim=True), "gives 1 rows"),
        (lambda x: x @ torch.zeros(5, 5), r"fails on inputs of shape \(4, 6\): RuntimeError"),
        (lambda x: {}["nothing"], r"fails .* KeyError: 'nothing'"),
        (lambda x: [][3], "IndexError"),
        (lambda x: (_ for _ in ()).throw(AssertionError), "AssertionError"),
    ],
)
def test_what_a_module_may_do_wrong(forward: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(WorkError, match=f"^model 'm' [^\n]*{words}[^\n]*$"):
        features(Module(forward), "output")


def test_inputs_that_are_no_numbers() -> None:
    with pytest.raises(WorkError, match=r"fails on inputs of shape \(2, 1\): TypeError"):
        features(mlp(), "output", np.array([["a"], ["b"]]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(MachineError, match="torch sees no CUDA device"):
        features(mlp(), "output", device="cuda")
    np.testing.assert_array_equal(
        features(mlp(), "output", device="auto"), features(mlp(), "output")
    )
