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


@dataclass(frozen=True, eq=False)
class ChosenInputs:
    """Some rows of other inputs; no others are read.

    Attributes:
        rows: (n,) row numbers, ascending.
    """

    inputs: Inputs
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        """The number of chosen rows."""
        return len(self.rows)

    def __getitem__(self, rows: slice, /) -> Block:
        """The inputs of a slice, of which neighbours are read together."""
        wanted = self.rows[rows]
        if isinstance(self.inputs, np.ndarray):
            return self.inputs[wanted]
        if not len(wanted):
            return self.inputs[0:0]
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)
        blocks = [self.inputs[int(run[0]) : int(run[-1]) + 1] for run in runs]
        items = [item for block in blocks for item in block]
        return as_block(items) if isinstance(items[0], np.ndarray) else items
