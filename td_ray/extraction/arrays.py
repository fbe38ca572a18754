"""Features that are in files already, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from td_ray.features import Pass
from td_ray.zoo import ArraySource

MOST_READERS = 8
"""Threads that prepare the inputs of one network; on a CPU one is enough, a GPU needs many."""

Layers = dict[str, NDArray[np.float32]]
"""Features (rows, width) of a block of samples, by layer."""


def read_arrays(
    model: ArraySource, wanted: Pass, layers: Sequence[str], start: int, folder: Path
) -> Iterator[Layers]:
    """Yield the features of a pass at some layers, from a row on.

    Raises:
        WorkError, InputError: a file is not as it must be.
    """
    files = [model.read(folder, wanted.data, layer) for layer in layers]
    done = 0
    for blocks in zip(*files, strict=True):
        skipped = max(0, start - done)
        done += len(blocks[0])
        if done > start:
            yield {x: block[skipped:] for x, block in zip(layers, blocks, strict=True)}
