"""Forward passes of torchvision's architectures, whose random weights cost as much as trained ones.

They differ in what binds them: products, memory, and the number of small operations.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from td_ray.bench.costs.plans import extract_all, planned
from td_ray.bench.measure import limited
from td_ray.costs import Counts
from td_ray.extraction.counting import count_network
from td_ray.extraction.networks import batch_of_bytes
from td_ray.spec import Experiment
from td_ray.tasks.inputs import Block
from td_ray.zoo.source import Precision
from td_ray.zoo.torch_network import TorchNetwork, without_weights

CASES = (
    *(("resnet18", 224), ("resnet18", 64), ("mobilenet_v2", 224), ("mobilenet_v3_small", 224)),
    *(("efficientnet_b0", 224), ("densenet121", 224), ("regnet_y_400mf", 224)),
    *(("convnext_tiny", 224), ("swin_t", 224), ("squeezenet1_1", 224), ("vit_b_16", 224)),
)
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cpu": ("float32",),
    "cuda": ("float32", "bfloat16", "float16"),
}
LOADED = ("resnet50", "densenet121", "convnext_tiny")
ENOUGH = 1.0
"""Seconds for which a case is repeated."""


def measure(device: str) -> list[tuple[str, str, Counts, float]]:
    """The seconds of batches of each architecture: one thread, or one GPU."""
    found: list[tuple[str, str, Counts, float]] = []
    with limited(1):
        for name, size in CASES:
            for precision in PRECISIONS[device]:
                work, seconds = _one(name, size, device, precision)
                found.append((precision, f"{device}, {name}, {size} pixels", work, seconds))
    return found


def load_seconds(folder: Path) -> float:
    """Seconds from a file of weights to the first sample, on average: read, checked, built, run."""
    np.save(folder / "images.npy", np.zeros((4, 3, 32, 32), np.float32))
    np.savez(folder / "labels.npz", id=np.arange(4).astype(str), label=np.arange(4) % 2)
    entries = []
    for name in LOADED:
        save_file(get_model(name, weights=None).state_dict(), folder / f"{name}.safetensors")
        factory = {"factory": f"torchvision.models:{name}", "layers": "output"}
        entries.append({"source": "checkpoints", "path": f"{name}.safetensors", **factory})
    data = {"name": "images", "source": "table", "path": "labels.npz", "inputs": "images.npy"}
    content = {
        "name": "load",
        "folder": str(folder),
        "models": entries,
        "data": [{**data, "split": {"test": 0.5}, "stratify": "label"}],
        "tasks": [{"name": "label", "data": "images", "target": "label"}],
        "heads": ["logistic"],
        "seeds": 0,
        "resources": {"cache": str(folder / "cache")},
    }
    experiment = Experiment.parse(content)
    seconds, _ = extract_all(planned(experiment), experiment)
    return seconds / len(LOADED)


def _one(name: str, size: int, device: str, precision: Precision) -> tuple[Counts, float]:
    build = partial(get_model, name, weights=None)
    image = torch.randn(1, 3, size, size)
    rows = batch_of_bytes(image.nbytes, device)
    batch = image.expand(rows, -1, -1, -1)
    shapes = _network(without_weights(build), "meta", precision)
    work, _ = count_network(shapes, batch, rows)
    network = _network(build(), device, precision)
    network.forward(batch)
    started, times = time.perf_counter(), 0
    while not times or time.perf_counter() - started < ENOUGH:
        network.forward(batch)["output"].sum().item()  # a GPU has done it only then
        times += 1
    return work, (time.perf_counter() - started) / times / rows


def _network(module: torch.nn.Module, device: str, precision: Precision) -> TorchNetwork:
    def prepare(block: Block) -> Block:
        return block

    return TorchNetwork(
        module,
        ["output"],
        prepare=prepare,
        device=device,
        who="reference",
        precision=precision,
    )
