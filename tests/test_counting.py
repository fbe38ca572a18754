"""What passes consist of, counted on shapes: closed forms, and torch's own count of real passes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from td_ray.costs import Counts
from td_ray.extraction.counting import count_network
from td_ray.zoo.torch_network import TorchNetwork, without_weights


def network(module: nn.Module, layers: tuple[str, ...] = ("output",)) -> TorchNetwork:
    return TorchNetwork(module, layers, prepare=lambda x: x, device="meta", who="it")


def counted(module: nn.Module, *shape: int, rows: int = 5) -> Counts:
    return count_network(network(module), torch.zeros(1, *shape), rows)[0]


def test_a_linear_layer() -> None:
    found = counted(nn.Linear(30, 20), 30)
    assert found.flops == pytest.approx(2 * 30 * 20)
    assert found.bytes == pytest.approx(4 * (30 + 20 + (30 * 20 + 20) / 5))
    assert (found.calls, found.convolved) == (pytest.approx(1 / 5), 0)


def test_a_convolution() -> None:
    found = counted(nn.Sequential(nn.Conv2d(3, 8, 5, bias=False)), 3, 16, 16)
    assert found.convolved == pytest.approx(2 * 8 * 3 * 5 * 5 * 12 * 12)
    assert found.flops == 0


def test_attention_is_one_operation_without_its_matrix() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = x.view(len(x), -1, 2, 8).transpose(1, 2)
            found = nn.functional.scaled_dot_product_attention(heads, heads, heads)
            return found.flatten(1)

    tokens = 11
    found = counted(Attention(), tokens * 16)
    assert found.flops == 2 * (2 * 2 * tokens * tokens * 8)
    assert found.bytes == pytest.approx(4 * 4 * tokens * 16, rel=0.5)  # not 2 x 11 x 11 more


def test_what_is_expanded_lies_in_memory_once() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.zeros(1, device=x.device).expand(len(x), 1000)

    assert counted(Sum(), 1000).bytes == pytest.approx(4 * 2000, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("swin_t", 64), ("regnet_y_400mf", 64)]
)
def test_products_are_those_of_a_real_pass(name: str, size: int) -> None:
    build = partial(get_model, name, weights=None)
    found = counted(without_weights(build), 3, size, size, rows=1)
    with FlopCounterMode(display=False) as real, torch.no_grad():
        build().eval()(torch.zeros(1, 3, size, size))
    assert found.flops + found.convolved == pytest.approx(real.get_total_flops(), rel=1e-6)


def test_shapes_need_no_memory_for_weights() -> None:
    """Of 200 billion weights."""
    module = without_weights(lambda: nn.Sequential(nn.Linear(10**6, 2 * 10**5)))
    assert counted(module, 10**6).flops == 2 * 10**6 * 2 * 10**5
