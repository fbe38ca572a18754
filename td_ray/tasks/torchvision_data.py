"""torchvision's classification data sets, from files that are there already.

data:
  - {name: fashion, source: torchvision, dataset: FashionMNIST, root: data}
  - {name: pets, source: torchvision, dataset: OxfordIIITPet, root: pets, parts: [trainval, test],
     split: {column: split, train: trainval}}
"""

from __future__ import annotations

import gzip
import inspect
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
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
from td_ray.registry import DATA_SOURCES, closest
from td_ray.spec import Split, Words
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.tasks.folders import files_under, stamp_of
from td_ray.tasks.inputs import Block, as_block

Arrays = dict[str, NDArray[Any]]


@DATA_SOURCES.register("torchvision")
class TorchvisionData(DataSource):
    """A data set of ``torchvision.datasets``; nothing is ever downloaded.

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
        root = folder / self.root
        where = f"data set '{self.name}'"
        _unpack(root / self.dataset / "raw", where)
        stamp = stamp_of(root)
        arrays = _labels(self.dataset, root, self.parts, stamp, cache, where)
        sizes = tuple(int(size) for size in arrays.pop("sizes"))
        named = list(zip(self.parts, sizes, strict=True))
        ids = [f"{part}-{row:05d}" for part, size in named for row in range(size)]
        columns = {**arrays, "split": np.repeat([part for part, _ in named], sizes)}
        inputs = partial(TorchvisionImages, self.dataset, root, self.parts, sizes, stamp)
        return Samples(np.array(ids), columns, inputs)

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

    dataset: str
    root: Path
    parts: tuple[str, ...]
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
        images = _opened(self.dataset, self.root, self.parts[part], self.stamp)
        try:
            image = images[row][0]
            return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # decoders raise far more than they document
            raise WorkError(
                f"{self.dataset} in {self.root}: sample {self.parts[part]}-{row:05d} cannot be "
                f"decoded: {one_line(error)}"
            ) from None


def _labels(
    dataset: str, root: Path, parts: Sequence[str], stamp: str, cache: Path, where: str
) -> Arrays:
    """Labels, their names and the parts' sizes; kept in the cache, since the import takes 3 s."""
    key = fingerprint([dataset, os.path.abspath(root), list(parts), stamp])
    path = cache / "torchvision" / f"{dataset}-{key}.npz"
    # not there yet, or damaged
    with suppress(OSError, ValueError, BadZipFile), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
    opened = [_open(dataset, root, part, where) for part in parts]
    with reading(root, where):
        codes = [_codes(data, f"{where}: torchvision's {dataset}") for data in opened]
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
def _opened(dataset: str, root: Path, part: str, stamp: str) -> Any:
    return _open(dataset, root, part, "inputs")


def _open(dataset: str, root: Path, part: str, where: str) -> Any:
    """Open one part.

    Raises:
        InputError: no such data set or part, or files that are missing.
    """
    found = _class(dataset, where)
    by_train = "train" in inspect.signature(found).parameters
    options: dict[str, Any] = {"train": part == "train"} if by_train else {"split": part}
    if by_train and part not in ("train", "test"):
        raise InputError(f"{where}: {dataset} has no part '{part}': known: test, train")
    try:
        return found(str(root), download=False, **options)
    except ValueError as error:
        if f"'{part}'" not in str(error) and f" {part} " not in str(error):
            raise InputError(f"{where}: {dataset} in {root}: {one_line(error)}") from None
        raise InputError(
            f"{where}: torchvision's {dataset} has no part '{part}' ({one_line(error)}); "
            "name its 'parts'"
        ) from None
    except Exception as error:  # each class has its own way to say that files are missing
        place = root / dataset / "raw" if hasattr(found, "raw_folder") else root
        from_there = _addresses(found)
        fetch = f"; get them from {', '.join(from_there)}" if from_there else ""
        raise InputError(
            f"{where}: the files of torchvision's {dataset} are not whole in {place} "
            f"({one_line(error, 120)}){fetch}, and put them into {place}; a run never downloads"
        ) from None


def _class(name: str, where: str) -> Any:
    from torchvision import datasets

    fit = {}
    for other in datasets.__all__:
        parameters = inspect.signature(getattr(datasets, other)).parameters
        if {"root", "download"} <= set(parameters) and {"train", "split"} & set(parameters):
            fit[other] = getattr(datasets, other)
    if name not in fit:
        raise InputError(
            f"{where}: torchvision has no data set '{name}' with parts: {closest(name, fit)}"
        )
    return fit[name]


def _addresses(found: Any, most: int = 4) -> list[str]:
    """Addresses among a class's attributes, whichever way it keeps them."""
    mirrors = getattr(found, "mirrors", ())
    if mirrors:
        return [f"{mirrors[0]}{name}" for name, _ in getattr(found, "resources", ())][:most]
    kept = (
        getattr(found, name, None) for name in ("url", "_URL", "urls", "_RESOURCES", "split_list")
    )
    return list(dict.fromkeys(address for value in kept for address in _texts(value)))[:most]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("http"):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _unpack(folder: Path, where: str) -> None:
    for packed in sorted(folder.glob("*-ubyte.gz")):
        plain = packed.with_suffix("")
        if plain.is_file():
            continue
        try:
            with gzip.open(packed) as source, atomic(plain) as new, new.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (OSError, EOFError) as error:
            raise InputError(f"{where}: cannot unpack {packed}: {one_line(error)}") from None
