"""What a graph takes: images or arrays of its input's shape, in batches of a size that it knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from td_ray.errors import WorkError
from td_ray.tasks.inputs import Block
from td_ray.zoo.images import as_tensor, each, stack


@dataclass(frozen=True)
class Axis:
    """The sizes that an axis of a graph's input may have.

    Attributes:
        largest: None where there is no bound.
        multiple: every size is one of this.
    """

    smallest: int = 1
    largest: int | None = None
    multiple: int = 1

    def takes(self, size: int) -> bool:
        """Whether the axis may have this size."""
        is_small_enough = self.largest is None or size <= self.largest
        return size >= self.smallest and is_small_enough and size % self.multiple == 0

    def __str__(self) -> str:
        if self.smallest == self.largest:
            return str(self.smallest)
        most = "and more" if self.largest is None else f"to {self.largest}"
        steps = f" in steps of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.smallest} {most}{steps}"

    def pieces(self, batch: Any) -> Iterator[Any]:
        """Cut an array or tensor along its first axis into pieces of sizes that the axis takes.

        The last is padded by its last row, so that all results together begin with the batch's.
        """
        step = len(batch)
        if self.largest is not None:
            step = self.largest // self.multiple * self.multiple
        for start in range(0, len(batch), step):
            piece = batch[start : start + step]
            wanted = max(-(-len(piece) // self.multiple) * self.multiple, self.smallest)
            rows = np.minimum(np.arange(wanted), len(piece) - 1)
            yield piece if wanted == len(piece) else piece[rows]


class GraphInputs:
    """Prepares inputs on the CPU; threads may call it at the same time."""

    def __init__(
        self,
        shape: Sequence[Any],
        dtype: Any,
        *,
        size: tuple[int, int] | None,
        mean: Sequence[float],
        deviation: Sequence[float],
        who: str,
    ) -> None:
        """Read off an input's shape what it takes.

        Args:
            shape: of the input; what is no integer is open.
            dtype: of the input, in NumPy's words.
            size: height and width that images are brought to; by default those of the shape,
                and where it leaves them open, the images' own.
            mean: subtracted from colours in [0, 1]; one number, or one per channel.
            deviation: divides them after that.
            who: the model's name, for errors.

        Raises:
            WorkError: four axes, of which none holds 1 or 3 channels.
        """
        self._shape, self._dtype, self._who = list(shape), dtype, who
        self._is_grey, self._channels_last = _layout(self._shape, who)
        self._size = size or self._own_size()
        self._mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self._deviation = torch.tensor(deviation, dtype=torch.float32).view(-1, 1, 1)

    def __call__(self, block: Block) -> NDArray[Any]:
        """Images for an input of four axes, else the arrays as they are.

        Raises:
            WorkError: inputs that are no images, or that differ in size.
        """
        if len(self._shape) != 4:
            return np.asarray(np.stack(each(block)), dtype=self._dtype)
        images = stack([self._image(image) for image in each(block)], self._who)
        if self._channels_last:
            images = images.permute(0, 2, 3, 1)
        return np.ascontiguousarray(images.numpy().astype(self._dtype))

    def _image(self, image: NDArray[Any]) -> Tensor:
        """(h, w) or (h, w, 3) to (channels, height, width)."""
        if self._is_grey and image.ndim != 2:
            raise WorkError(
                f"model '{self._who}' takes grey images (height, width), not {image.shape}"
            )
        colour = as_tensor(image[None], self._who)
        scaled = colour.float() / 255 if colour.dtype == torch.uint8 else colour.float()
        if self._size is not None and scaled.shape[2:] != self._size:
            scaled = functional.interpolate(scaled, self._size, mode="bilinear", antialias=True)
        channels = scaled[0, :1] if self._is_grey else scaled[0]
        if self._dtype == np.uint8:  # such a graph does its own scaling
            return (channels * 255).round()
        return (channels - self._mean) / self._deviation

    def _own_size(self) -> tuple[int, int] | None:
        if len(self._shape) != 4:
            return None
        height, width = self._shape[1:3] if self._channels_last else self._shape[2:4]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _layout(shape: Sequence[Any], who: str) -> tuple[bool, bool]:
    """Whether images are grey, and whether channels come last."""
    if len(shape) != 4:
        return False, False
    if shape[1] in (1, 3):
        return shape[1] == 1, False
    if shape[3] in (1, 3):
        return shape[3] == 1, True
    raise WorkError(
        f"model '{who}' takes inputs of shape {list(shape)}; images have 1 or 3 channels, on the "
        "second axis or the last"
    )
