"""What models take: inputs that are read block by block, and small where they are handed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any] | list[Any]
"""Inputs of some samples: an array, or a list where they differ in size (images, texts)."""


class Inputs(Protocol):
    """Inputs of n samples; an array is one, and so is a reader that decodes images lazily.

    Threads may read blocks at the same time. What is pickled is small (paths, row numbers).
    """

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def __getitem__(self, rows: slice, /) -> Block:
        """The inputs of a slice of the samples."""
        ...


@dataclass(frozen=True)
class Texts:
    """Texts as inputs, one per sample: their blocks are lists of str."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.texts)

    def __getitem__(self, rows: slice, /) -> list[str]:
        """The texts of a slice, as a list."""
        return list(self.texts[rows])


def as_block(images: Sequence[NDArray[Any]]) -> Block:
    """One array (n, ...) where all have one shape, else a list of them."""
    if images and all(image.shape == images[0].shape for image in images):
        return np.stack(images)
    return list(images)
