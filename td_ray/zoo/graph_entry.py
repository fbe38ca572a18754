"""Entries whose files are whole graphs: what they share with each other and no other source.

An input of four axes takes images: channels first or last as its shape says, brought to ``size``,
colours in [0, 1], less ``mean``, divided by ``deviation``. Other inputs take the data set's
arrays as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from td_ray.zoo.file_entry import FileEntry
from td_ray.zoo.source import NetworkSource

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

    size: Pixels | tuple[Pixels, Pixels] | None = None
    mean: PerChannel = 0.0
    deviation: Positive | tuple[Positive] | tuple[Positive, Positive, Positive] = 1.0

    def image_identity(self) -> list[Any]:
        """JSON that says how images are prepared."""
        return [self.size, _numbers(self.mean), _numbers(self.deviation)]

    def image_options(self) -> dict[str, Any]:
        """What ``td_ray.zoo.graph_inputs.GraphInputs`` takes."""
        return {
            "size": (self.size, self.size) if isinstance(self.size, int) else self.size,
            "mean": _numbers(self.mean),
            "deviation": _numbers(self.deviation),
        }


def _numbers(value: float | tuple[float, ...]) -> list[float]:
    return [value] if isinstance(value, float) else list(value)
