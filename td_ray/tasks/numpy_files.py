"""npy and npz files, without pickle, and with no file left open where one is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray


def read_npy(path: Path) -> NDArray[Any]:
    """Read an npy file."""
    with path.open("rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def map_npy(path: Path) -> NDArray[Any]:
    """Map an npy file; rows are read when they are used."""
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an npz file, whose arrays are read when they are asked for."""
    with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
        yield arrays
