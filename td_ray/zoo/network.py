"""A loaded network, as extraction runs it: prepared on the CPU, then one pass on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from td_ray.tasks.inputs import Block


class Network(ABC):
    """A network with the layers that are asked for; it is in evaluation mode and on its device."""

    @abstractmethod
    def prepare(self, block: Block) -> Any:
        """What ``forward`` takes, still on the CPU. Threads may call it at the same time.

        Raises:
            Exception: the inputs are not of the kind that the model takes; extraction says where.
        """

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """One pass: the features (n, width) of each layer, pooled, on the device.

        Raises:
            Exception: whatever the model raises on the data; extraction says where.
        """
