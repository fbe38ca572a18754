"""torchvision's classification data sets, from files that are there already.

data:
  - {name: fashion, source: torchvision, dataset: FashionMNIST, root: data}
  - {name: pets, source: torchvision, dataset: OxfordIIITPet, root: pets, parts: [trainval, test],
     split: {column: split, train: trainval}}
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError, WorkError
from td_ray.files import Digest, atomic, fingerprint, one_line, reading
from td_ray.registry import DATA_SOURCES
from td_ray.spec import Split, Words
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.tasks.folders import files_under, stamp_of
from td_ray.tasks.inputs import Block, as_block
from td_ray.tasks.torchvision_files import NeededImages

Arrays = dict[str, NDArray[Any]]


@DATA_SOURCES.register("torchvision")
class TorchvisionData(DataSource):
    """A data set of ``torchvision.datasets``; ``td-ray prefetch`` downloads it, a run does not.

    Columns are ``split`` (the library's own parts, and the split unless another one is asked
    for), ``label`` (codes) and, where the library knows them, ``label_name``. Sample ids are
    ``train-00017``. Inputs are uint8 images (h, w) or (h, w, 3). An idx file that is only there
    as ``.gz`` is unpacked beside it, as the library does when it downloads.

    Attributes:
        dataset: the name of the class.
        root: the folder that the library is given. All files under it count as this data set's.
        parts: the library's words for ``split``, where they are others than train and test.
    """

    dataset: str
    root: str
    parts: Words = ("train", "test")
    split: Split = Split(column="split")

    def read(self, folder: Path, cache: Path) -> Samples:
        """Read labels; see ``DataSource``."""
        (files,) = self.needed(folder)
        try:
            files.unpack()
        except OSError:
            raise InputError(files.remedy) from None
        stamp = stamp_of(files.root)
        arrays = _labels(files, stamp, cache)
        sizes = tuple(int(size) for size in arrays.pop("sizes"))
        named = list(zip(self.parts, sizes, strict=True))
        ids = [f"{part}-{row:05d}" for part, size in named for row in range(size)]
        columns = {**arrays, "split": np.repeat([part for part, _ in named], sizes)}
        inputs = partial(TorchvisionImages, files, sizes, stamp)
        return Samples(np.array(ids), columns, inputs)

    def needed(self, folder: Path) -> list[NeededImages]:
        """The files under the root."""
        what = f"data set '{self.name}'"
        return [NeededImages(what, self.dataset, folder / self.root, self.parts)]

    def inputs_identity(self, folder: Path, digest: Digest) -> Any:
        """The name, the parts and the digest of all files under the root."""
        known = digest(files_under(folder / self.root))
        return None if known is None else [self.dataset, list(self.parts), known]


@dataclass(frozen=True)
class TorchvisionImages:
    """Images of a data set's parts, one part after the other, decoded when they are read.

    Attributes:
        sizes: the number of samples of each part.
        stamp: of the files under the root, so that changed ones are opened again.
    """

    files: NeededImages
    sizes: tuple[int, ...]
    stamp: str

    def __len__(self) -> int:
        """The number of images."""
        return sum(self.sizes)

    def __getitem__(self, rows: slice, /) -> Block:
        """Images of a slice: one array where all have one shape, else a list.

        Raises:
            WorkError: the library cannot decode one.
        """
        return as_block([self._image(row) for row in range(*rows.indices(len(self)))])

    def _image(self, row: int) -> NDArray[np.uint8]:
        part = int(np.searchsorted(np.cumsum(self.sizes), row, side="right"))
        row -= sum(self.sizes[:part])
        name = self.files.parts[part]
        images = _opened(self.files, name, self.stamp)
        try:
            image = images[row][0]
            return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # decoders raise far more than they document
            raise WorkError(
                f"{self.files.dataset} in {self.files.root}: sample {name}-{row:05d} cannot be "
                f"decoded: {one_line(error)}"
            ) from None


def _labels(files: NeededImages, stamp: str, cache: Path) -> Arrays:
    """Labels, their names and the parts' sizes; kept in the cache, since the import takes 3 s."""
    key = fingerprint([files.dataset, os.path.abspath(files.root), list(files.parts), stamp])
    path = cache / "torchvision" / f"{files.dataset}-{key}.npz"
    # not there yet, or damaged
    with suppress(OSError, ValueError, BadZipFile), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
    opened = [files.open(part) for part in files.parts]
    with reading(files.root, files.what):
        who = f"{files.what}: torchvision's {files.dataset}"
        codes = [_codes(data, who) for data in opened]
    found: Arrays = {"label": np.concatenate(codes), "sizes": np.array([len(c) for c in codes])}
    names = getattr(opened[0], "classes", None)
    if names and all(isinstance(name, str) for name in names) and _within(found["label"], names):
        found["label_name"] = np.array(names)[found["label"]]
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **found)
    return found


def _within(codes: NDArray[np.int64], names: Sequence[str]) -> bool:
    return bool(codes.min() >= 0 and codes.max() < len(names))


def _codes(data: Any, who: str) -> NDArray[np.int64]:
    """Labels (n,) of a part: the attribute that holds them all, or one sample after the other."""
    n = len(data)
    first, last = data[0][1], data[n - 1][1]
    if isinstance(first, bool) or not isinstance(first, int | np.integer):
        kind = type(first).__name__
        raise InputError(f"{who} gives a {kind} for each sample, and a class is needed")
    kept = [getattr(data, name, None) for name in ("targets", "labels", "_labels")]
    for samples in (getattr(data, name, None) for name in ("samples", "_samples")):
        if isinstance(samples, list):  # of (path or image, label)
            kept.append([sample[1] for sample in samples])
    for labels in filter(lambda labels: labels is not None and len(labels) == n, kept):
        codes = np.asarray(labels)
        if codes.dtype.kind in "iu" and (codes[0], codes[-1]) == (first, last):
            return codes.astype(np.int64)
    return np.array([data[row][1] for row in range(n)], dtype=np.int64)


@lru_cache(maxsize=4)
def _opened(files: NeededImages, part: str, stamp: str) -> Any:
    return files.open(part)
