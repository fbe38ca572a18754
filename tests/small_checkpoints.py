"""Checkpoints of a small network, and the factory that builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from small_data import dataset, extracted
from torch import nn

from td_ray.zoo.checkpoints import Checkpoints

IDS = list("abcdef")
INPUTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
DATA = dataset(IDS, INPUTS)
FACTORY = """
from torch import nn

def build(width=3, scale=1):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
"""


def network(width: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))


def model(folder: Path, **entry: Any) -> Checkpoints:
    entry = {"source": "checkpoints", "path": "a.*", "factory": "nets:build", **entry}
    (found,) = Checkpoints(**entry).expand(folder, ["d"], folder)
    return found


def features(folder: Path, layer: str = "output", **entry: Any) -> NDArray[np.float32]:
    return extracted(model(folder, **entry), DATA, folder, layer)[layer]


def expected(module: nn.Module) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(INPUTS)))
