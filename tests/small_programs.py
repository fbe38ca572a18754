"""Programs of torch.export of small networks, saved to files and run by their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from small_data import dataset, extracted
from torch import Tensor, nn
from torch.export import Dim, export

from td_ray.zoo.exported_programs import ExportedPrograms

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 255, (5, 9, 8, 3), dtype=np.uint8)
ROWS = RANDOM.normal(size=(7, 4)).astype(np.float32)
FREE = Dim("n", min=1)


class Small(nn.Module):
    """Convolution, normalization, dropout; a change in place, a constant, a block, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean = torch.randn(4)
        self.head, self.shift = nn.Linear(4, 2), torch.ones(2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.relu_(self.norm(self.conv(images)))
        left, right = maps.chunk(2, 1)
        with torch.no_grad():
            left = left * 2
        hidden = torch.cat([left, right], 1).mean((2, 3)).view(images.shape[0], -1)
        hidden = nn.functional.dropout(hidden, 0.5, self.training)
        return self.head(hidden) + self.shift, maps


def save(
    path: Path, network: nn.Module, example: Any, free: Any = FREE, decomposed: bool = False
) -> None:
    shapes = None if free is None else ({0: free},)
    program = export(network, (example,), dynamic_shapes=shapes)
    torch.export.save(program.run_decompositions() if decomposed else program, path)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def save_small(folder: Path) -> Path:
    """The file of a small network's program, for any number of images."""
    save(folder / "a.pt2", small_network(), torch.randn(2, 3, 9, 8))
    return folder / "a.pt2"


def expanded(folder: Path, **entry: Any) -> ExportedPrograms:
    (model,) = ExportedPrograms(source="exported", path="*.pt2", **entry).expand(
        folder, ["d"], folder
    )
    return model


def extract(folder: Path, layers: list[str], inputs: Any, batch: int = 4, **entry: Any) -> Any:
    data = dataset([str(row) for row in range(len(inputs))], inputs)
    return extracted(expanded(folder, **entry), data, folder, *layers, batch=batch)


def expected(
    network: Any, images: NDArray[Any], mean: float = 0, deviation: float = 1
) -> dict[str, Tensor]:
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        conv = network.conv((scaled - mean) / deviation)
        norm = network.norm(conv)
        maps = norm.relu().mean((2, 3))
        hidden = maps * torch.tensor([2, 2, 1, 1])
        return {
            "conv2d": conv.mean((2, 3)),
            "batch_norm": norm.mean((2, 3)),  # before it is changed in place
            "relu_": maps,
            "penultimate": hidden,
            "output": network.head(hidden) + 1,
        }
