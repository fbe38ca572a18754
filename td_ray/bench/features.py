"""Images per second of extraction, against the loop that people write.

The rival is a plain forward loop: slices of the same size, prepared by the same transform, one
forward hook on the penultimate layer, and one concatenation. Both take turns with the same number
of threads for the forward pass, one and all; their features agree within 1e-5 of the largest entry,
which is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from td_ray.bench.measure import limited
from td_ray.extraction.networks import run_network
from td_ray.zoo.torch_network import TorchNetwork

TURNS = 3
AGREE_WITHIN = 1e-5

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network, its images (n, h, w, 3) uint8, and how many go through at once."""

    name: str
    network: nn.Module
    prepare: Callable[[Any], Tensor]
    images: NDArray[np.uint8]
    batch: int


def run(progress: Callable[[str], None] = lambda line: None) -> list[Row]:
    """Run the benchmark on a small network and on torchvision's MobileNetV2."""
    rows = []
    for case in (_small(), _mobilenet()):
        for threads in sorted({1, torch.get_num_threads()}):
            started = time.perf_counter()
            with limited(threads):
                rows += _measure(case)
            seconds = time.perf_counter() - started
            progress(f"features, {case.name}, {threads} threads, {seconds:.0f} s")
    return rows


def _small() -> Case:
    """Four convolutions on 32 pixels, where what is around the forward pass shows."""
    torch.manual_seed(0)
    widths = [3, 16, 32, 64, 64]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return Case("convnet, 32 pixels", network, _scaled, _images(8192, 32), 256)


def _mobilenet() -> Case:
    """Random weights, which cost as much as trained ones."""
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    torch.manual_seed(0)
    transform = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()

    def prepare(block: Any) -> Tensor:
        prepared: Tensor = transform(torch.from_numpy(block).permute(0, 3, 1, 2))
        return prepared

    return Case("MobileNetV2, 96 to 224 pixels", mobilenet_v2(), prepare, _images(256, 96), 16)


def _images(count: int, size: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    return random.integers(256, size=(count, size, size, 3), dtype=np.uint8)


def _scaled(block: Any) -> Tensor:
    return torch.from_numpy(block).permute(0, 3, 1, 2).float() / 255


def _measure(case: Case) -> list[Row]:
    methods = {"td_ray": _td_ray, "plain_loop": _plain_loop}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    found: dict[str, NDArray[np.float32]] = {}
    for turn in range(TURNS + 1):
        for name, method in methods.items():
            started = time.perf_counter()
            found[name] = method(case)
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    difference = np.abs(found["td_ray"] - found["plain_loop"]).max()
    scale = np.abs(found["plain_loop"]).max()
    if not difference <= AGREE_WITHIN * scale:
        raise AssertionError(f"features differ by {difference:g}, the largest is {scale:g}")
    return [
        {
            "benchmark": "features",
            "case": f"{case.name}, {len(case.images)} images, batches of {case.batch}",
            "method": name,
            "threads": torch.get_num_threads(),
            "images_per_second": len(case.images) / min(times),
            "times_plain_loop": min(times) / min(seconds["plain_loop"]),
            "difference": float(difference / scale),
        }
        for name, times in seconds.items()
    ]


def _td_ray(case: Case) -> NDArray[np.float32]:
    network = TorchNetwork(
        case.network, ["penultimate"], prepare=case.prepare, device="cpu", who=case.name
    )
    blocks = run_network(network, case.images, case.batch, case.name)
    features = np.concatenate([block["penultimate"] for block in blocks])
    network.close()
    return features


def _plain_loop(case: Case) -> NDArray[np.float32]:
    seen: list[Tensor] = []

    def hook(module: nn.Module, inputs: Sequence[Tensor]) -> None:
        seen.append(inputs[0].clone())

    last = [module for module in case.network.modules() if isinstance(module, nn.Linear)][-1]
    handle = last.register_forward_pre_hook(hook)
    case.network.eval()
    with torch.inference_mode():
        for start in range(0, len(case.images), case.batch):
            case.network(case.prepare(case.images[start : start + case.batch]))
    handle.remove()
    features: NDArray[np.float32] = torch.cat(seen).numpy()
    return features
