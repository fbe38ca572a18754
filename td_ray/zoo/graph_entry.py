"""Entries whose files are whole graphs: what they share with each other and no other source.

An input of four axes takes images: channels first or last as its shape says, brought to ``size``,
colours in [0, 1], less ``mean``, divided by ``deviation``. Other inputs take the data set's
arrays as they are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from td_ray.files import require_file
from td_ray.tasks import DataSet
from td_ray.zoo.file_entry import FileEntry
from td_ray.zoo.source import NetworkSource

if TYPE_CHECKING:
    from td_ray.zoo.network import Network

Pixels = Annotated[int, Field(gt=0)]
PerChannel = float | tuple[float] | tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]


class GraphEntry(FileEntry, NetworkSource):
    """Files of graphs, and how images are prepared for them.

    Attributes:
        size: of a square, or height and width; by default that of the graph's input.
        mean: one number or three, of colours in [0, 1].
        deviation: one number or three.
    """

    default_layer: ClassVar[str] = "penultimate"
    one_file_per_data_set: ClassVar[bool] = False
    file_kind: ClassVar[str]
    """What errors call its files."""

    size: Pixels | tuple[Pixels, Pixels] | None = None
    mean: PerChannel = 0.0
    deviation: Positive | tuple[Positive] | tuple[Positive, Positive, Positive] = 1.0

    def image_identity(self) -> list[Any]:
        """JSON that says how images are prepared."""
        return [self.size, _numbers(self.mean), _numbers(self.deviation)]

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """The file is there, and the data set has inputs."""
        super().check(folder, data, tasks)
        require_file(self.file(folder, data.name), self.file_kind)

    @abstractmethod
    def network(self) -> type[Network]:
        """The class that runs a graph; imported here, since it needs heavy libraries."""

    def load(self, folder: Path, data: DataSet, layers: Sequence[str], device: str) -> Network:
        """The graph on the device."""
        images = {
            "size": (self.size, self.size) if isinstance(self.size, int) else self.size,
            "mean": _numbers(self.mean),
            "deviation": _numbers(self.deviation),
        }
        build: Any = self.network()
        network: Network = build(
            self.file(folder, data.name),
            layers,
            images=images,
            device=device,
            who=str(self.name),
            pooling=self.pooling,
        )
        return network


def _numbers(value: float | tuple[float, ...]) -> list[float]:
    return [value] if isinstance(value, float) else list(value)
